/**
 * A directory as a build's context: a tar of its files, links and directories in a fixed order, without owners and times,
 * so that equal directories are equal bytes. What .dockerignore names is neither read nor sent; links are sent as links.
 */
import { constants } from "node:fs";
import { lstat, open, readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { type TarHeader, tarEnd, tarPadding, writeTarHeader } from "../../core/tar-writer.ts";
import { formatBytes } from "../../core/units.ts";
import { type IgnoreRules, parseIgnoreRules } from "./ignore-rules.ts";

export interface PackOptions {
  directory: string;
  /** The Dockerfile's path in it: sent whatever .dockerignore says. */
  file: string;
}

const maxEntries = 100_000;
const maxBytes = 4 * 1024 ** 3;
const maxIgnoreBytes = 1024 ** 2;
const ignoreFile = ".dockerignore";

/** @throws Invalid when there is no such directory, or no such file in it. */
export async function expectDockerfile(directory: string, file: string): Promise<void> {
  const found = await stat(directory).catch(() => undefined);
  if (!found?.isDirectory()) {
    throw new StrataError("Invalid", `${directory} is no directory; a build needs one with a Dockerfile`);
  }
  if (file.startsWith("/") || file === ".." || file.startsWith("../")) {
    throw new StrataError("Invalid", `--file must be a path in ${directory}, not "${file}"`);
  }
  const dockerfile = await stat(join(directory, file)).catch(() => undefined);
  if (dockerfile?.isFile()) return;
  throw new StrataError("Invalid", `${directory} has no file "${file}"; name the Dockerfile with --file`);
}

/** @throws Invalid for what cannot be read or sent, and for too much of it. */
export async function* packContext({ directory, file }: PackOptions): AsyncGenerator<Buffer, void, void> {
  const rules = parseIgnoreRules(await readRules(directory));
  const total = { entries: 0, bytes: 0 };
  for await (const path of listContext(directory, rules, file)) {
    if (++total.entries > maxEntries) throw tooMuch(directory, `more than ${maxEntries} files`);
    yield* packEntry(directory, path, (bytes) => {
      total.bytes += bytes;
      if (total.bytes > maxBytes) throw tooMuch(directory, `more than ${formatBytes(maxBytes)}`);
    });
  }
  yield tarEnd;
}

async function readRules(directory: string): Promise<string> {
  try {
    const text = await readFile(join(directory, ignoreFile), "utf8");
    if (Buffer.byteLength(text) <= maxIgnoreBytes) return text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw unreadable(join(directory, ignoreFile), error);
  }
  throw new StrataError("Invalid", `${join(directory, ignoreFile)} is larger than 1 MiB, the limit`);
}

/** Paths in the order of their names, each directory before what is in it. */
async function* listContext(
  directory: string,
  rules: IgnoreRules,
  file: string,
  below = "",
): AsyncGenerator<string, void, void> {
  const found = await readdir(join(directory, below), { withFileTypes: true }).catch((error) => {
    throw unreadable(join(directory, below), error);
  });
  const entries = found.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    const needed = path === file || path === ignoreFile || file.startsWith(`${path}/`);
    const ignored = !needed && rules.ignores(path);
    if (!ignored) yield path;
    if (!entry.isDirectory()) continue;
    if (!ignored || rules.hasExceptions) yield* listContext(directory, rules, file, path);
  }
}

async function* packEntry(
  directory: string,
  path: string,
  count: (bytes: number) => void,
): AsyncGenerator<Buffer, void, void> {
  const full = join(directory, path);
  const stat = await lstat(full).catch((error) => {
    throw unreadable(full, error);
  });
  const header: TarHeader = {
    ...{ path, mode: stat.mode & 0o7777, uid: 0, gid: 0, sizeBytes: 0, mtimeSeconds: 0, target: "" },
    ...{ type: "file", attributes: new Map() },
  };
  if (stat.isDirectory()) yield writeTarHeader({ ...header, type: "directory" });
  else if (stat.isSymbolicLink())
    yield writeTarHeader({ ...header, type: "symlink", target: await readlink(full), mode: 0o777 });
  else if (stat.isFile()) yield* packFile(full, header, count);
  else
    throw new StrataError(
      "Invalid",
      `${full} is neither a file nor a directory nor a link; put it into ${ignoreFile}`,
    );
}

/** A link that takes the file's place meanwhile is not followed. */
async function* packFile(
  full: string,
  header: TarHeader,
  count: (bytes: number) => void,
): AsyncGenerator<Buffer, void, void> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  await using file = await open(full, flags).catch((error) => {
    throw unreadable(full, error);
  });
  const { size } = await file.stat();
  count(size);
  yield writeTarHeader({ ...header, sizeBytes: size });
  let left = size;
  while (left > 0) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(Math.min(left, 256 * 1024)));
    if (bytesRead === 0) throw new StrataError("Invalid", `${full} became shorter while it was read`);
    left -= bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
  yield tarPadding(size);
}

function unreadable(path: string, cause: unknown): StrataError {
  return new StrataError("Invalid", `cannot read ${path} for the build's context`, { cause });
}

function tooMuch(directory: string, what: string): StrataError {
  return new StrataError(
    "Invalid",
    `the build's context ${directory} has ${what}, the limit; name what the build does not need in ${ignoreFile}`,
  );
}
