/** A root archive as a tree on disk, owners shifted. What it may hold, root-archive decides; tar only writes it down. */
import { chown, mkdir } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import { runContained } from "./contained-process.ts";
import { type ArchiveFacts, type SanitizeOptions, sanitizeRootArchive } from "./root-archive.ts";

export interface UnpackRequest extends SanitizeOptions {
  archive: AsyncIterable<Uint8Array>;
  /** Made here. */
  tree: string;
  /** An empty directory. */
  jail: string;
  idBase: number;
  signal: AbortSignal;
  /** Called now and then with the bytes unpacked so far. */
  onBytes(bytes: number): void;
}

const timeoutMs = 60 * 60_000;
const reportEveryBytes = 32 * 1024 ** 2;

const tarArguments = [
  "--extract",
  "--file=-",
  "--directory=/tree",
  "--numeric-owner",
  "--same-owner",
  "--preserve-permissions",
  "--delay-directory-restore",
  "--xattrs",
  "--xattrs-include=security.capability",
  "--warning=no-timestamp",
];

/** @throws Invalid for a hostile or damaged archive; whatever the archive's stream throws. */
export async function unpackRootArchive(request: UnpackRequest): Promise<ArchiveFacts> {
  const { archive, tree, jail, idBase, signal } = request;
  await mkdir(tree, { mode: 0o755 });
  await chown(tree, idBase, idBase);
  const facts: ArchiveFacts = { capabilities: new Map(), unpackedBytes: 0, entries: 0 };
  const clean = reporting(sanitizeRootArchive(archive, request, facts), request.onBytes);
  try {
    const tar = await runContained("tar", tarArguments, {
      jail,
      idBase,
      binds: [{ from: tree, to: "/tree", writable: true }],
      stdin: clean,
      signal,
      timeoutMs,
    });
    if (tar.status === 0) return facts;
    throw new StrataError("Internal", "unpacking the archive failed; the daemon's log has the reason", {
      detail: tar.stderr.slice(0, 2000),
    });
  } finally {
    await clean.return(); // ends what makes the archive, such as a build, before its directory is removed
  }
}

async function* reporting(
  chunks: AsyncIterable<Buffer>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Buffer, void, void> {
  let bytes = 0;
  let next = reportEveryBytes;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes >= next) {
      onBytes(bytes);
      next = bytes + reportEveryBytes;
    }
    yield chunk;
  }
}
