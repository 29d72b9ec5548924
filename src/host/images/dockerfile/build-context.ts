/**
 * A build's context: a tar from whoever may write images. It is checked like a root archive and written anew, so that the
 * builder reads nothing that a stranger chose byte by byte, and so that the same files are the same context whenever and
 * by whomever they were packed.
 */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { posix } from "node:path";
import { StrataError } from "../../../core/errors.ts";
import { tarEnd, tarPadding, writeTarHeader } from "../../../core/tar-writer.ts";
import { formatBytes } from "../../../core/units.ts";
import { type ArchiveFacts, sanitizeRootArchive } from "../root-archive.ts";
import { readTar, show, type TarEntry } from "../tar-reader.ts";

export interface BuildContext {
  /** Of the tar. */
  path: string;
  sha256: string;
  dockerfile: string;
}

export const contextLimits = {
  maxEntries: 100_000,
  maxBytes: 4 * 1024 ** 3,
  maxDockerfileBytes: 1024 ** 2,
} as const;

/** @throws Invalid naming the entry, for what leads out of the context, is no file, or is too much; without Dockerfile. */
export async function writeContext(
  source: AsyncIterable<Uint8Array>,
  file: string,
  path: string,
  signal: AbortSignal,
): Promise<BuildContext> {
  const wanted = posix.normalize(file);
  const sum = createHash("sha256");
  let dockerfile: string | undefined;
  await using target = await open(path, "wx", 0o600);
  const write = async (bytes: Uint8Array) => {
    signal.throwIfAborted();
    sum.update(bytes);
    await target.writeFile(bytes);
  };
  for await (const entry of readTar(sanitizeRootArchive(source, sanitizing, emptyFacts()))) {
    if (entry.type === "fifo") throw refuse(entry, "is a pipe; a context has files, directories and links");
    if (entry.type === "symlink") checkLink(entry);
    await write(writeTarHeader({ ...entry, uid: 0, gid: 0, mtimeSeconds: 0, attributes: new Map() }));
    const text: Uint8Array[] = [];
    const isDockerfile = entry.type === "file" && posix.normalize(entry.path) === wanted;
    if (isDockerfile && entry.sizeBytes > contextLimits.maxDockerfileBytes)
      throw refuse(entry, `is larger than ${formatBytes(contextLimits.maxDockerfileBytes)}, the limit`);
    for await (const chunk of entry.content) {
      if (isDockerfile) text.push(Uint8Array.from(chunk));
      await write(chunk);
    }
    await write(tarPadding(entry.sizeBytes));
    if (isDockerfile) dockerfile = Buffer.concat(text).toString("utf8");
  }
  await write(tarEnd);
  if (dockerfile === undefined) {
    const message = `the build's context has no file "${show(file)}"; name the Dockerfile with --file, and see that .dockerignore keeps it`;
    throw new StrataError("Invalid", message);
  }
  return { path, sha256: sum.digest("hex"), dockerfile };
}

const sanitizing = {
  limits: {
    maxEntries: contextLimits.maxEntries,
    maxUnpackedBytes: contextLimits.maxBytes,
    maxRatio: Number.POSITIVE_INFINITY,
    ratioFromBytes: Number.POSITIVE_INFINITY,
  },
  packedBytes: () => Number.POSITIVE_INFINITY,
  verbatim: true,
};

function emptyFacts(): ArchiveFacts {
  return { capabilities: new Map(), unpackedBytes: 0, entries: 0 };
}

/** An absolute link means the root of the image that it is copied into. A relative one must stay where it can be seen. */
function checkLink(entry: TarEntry): void {
  if (entry.target.startsWith("/")) return;
  const found = posix.normalize(posix.join(posix.dirname(entry.path), entry.target));
  if (found !== ".." && !found.startsWith("../")) return;
  throw refuse(entry, `is a link to "${show(entry.target)}", which leads out of the context`);
}

function refuse(entry: TarEntry, what: string): StrataError {
  return new StrataError("Invalid", `the build's context is refused: "${show(entry.path)}" ${what}`);
}
