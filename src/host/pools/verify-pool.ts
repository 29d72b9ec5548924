/**
 * Can a directory be a storage pool? Found out by looking and by doing, not by the name of a file system alone. Whoever may
 * change the directory or one above it could lead volumes elsewhere: only root may.
 */
import { lstat, mkdtemp, open, readFile, realpath, rm, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";
import type { PoolFacts, PoolRequest } from "./pools.ts";

/** By the number that statfs(2) tells (linux/magic.h). */
const fileSystems: Readonly<Record<number, string>> = {
  61267: "ext4",
  1481003842: "xfs",
  2435016766: "btrfs",
  26985: "nfs",
  4076150800: "f2fs",
  801189825: "zfs",
  2035054128: "overlay",
  1702057286: "fuse",
  4283649346: "cifs",
  4266872130: "smb2",
  3393526350: "bcachefs",
};

/** What vanishes with the host's next boot, or is no place for files at all. */
const transient: Readonly<Record<number, string>> = {
  16914836: "tmpfs",
  2240043254: "ramfs",
  40864: "proc",
  1650812274: "sysfs",
  7377: "devpts",
  2613483: "cgroup",
  1667723888: "cgroup2",
  1936814952: "squashfs",
  38496: "iso9660",
};

/** What the file system there can. @throws Unsupported, or Unavailable where it cannot be written to. */
export async function verifyPool(request: PoolRequest, signal: AbortSignal): Promise<PoolFacts> {
  const { path, type, reflink } = request;
  const magic = (await statfs(path)).type >>> 0;
  const known = transient[magic];
  if (known !== undefined) throw refuse("Unsupported", path, `is on ${known}, which keeps nothing`);
  const fileSystem = fileSystems[magic] ?? `0x${magic.toString(16)}`;
  if (type === "nfs" && fileSystem !== "nfs") {
    throw refuse("Unavailable", path, `is on ${fileSystem}, not on NFS; is it mounted?`);
  }
  if (type === "directory" && fileSystem === "nfs") {
    throw refuse("Unsupported", path, "is on NFS; make the pool with type nfs");
  }
  const shares = await proveSharing(path, signal);
  if (reflink === "required" && !shares) {
    const better = "use a directory on btrfs, or on xfs made with reflink, or leave `reflink: required` out";
    throw refuse("Unsupported", path, `is on ${fileSystem}, where files cannot share blocks; ${better}`);
  }
  return { fileSystem, reflink: shares };
}

/** @throws Invalid for what is no directory, or none that root alone can change; `own`: directories of the daemon. */
export async function verifyPath(path: string, own: readonly string[]): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") throw refuse("Invalid", path, "does not exist; make the directory first");
    if (error.code === "ENOTDIR")
      throw refuse("Invalid", path, "leads through something that is no directory");
    throw refuse("Unavailable", path, `cannot be looked at (${error.code})`, error);
  });
  const real = await realpath(path);
  if (real !== path) throw refuse("Invalid", path, `is a way over symbolic links to ${real}; name that one`);
  if (!found.isDirectory()) throw refuse("Invalid", path, "is no directory");
  for (const directory of own) {
    const place = await realpath(directory).catch(() => directory);
    if (isWithin(path, place)) throw refuse("Invalid", path, `is inside Strata's own directory ${place}`);
    if (isWithin(place, path)) throw refuse("Invalid", path, `holds Strata's own directory ${place}`);
  }
  for (let at = path; ; at = dirname(at)) {
    const { uid, mode } = await lstat(at);
    const sticky = (mode & 0o1000) !== 0 && at !== path;
    if (uid !== 0) throw refuse("Invalid", path, `can be changed by others: ${at} belongs to user ${uid}`);
    if ((mode & 0o022) !== 0 && !sticky) {
      throw refuse("Invalid", path, `can be changed by others: ${at} is writable for them (chmod go-w)`);
    }
    if (at === "/") return;
  }
}

/** Writes, keeps and shares: with files of its own, which are gone afterwards. */
async function proveSharing(path: string, signal: AbortSignal): Promise<boolean> {
  const probe = await mkdtemp(join(path, ".strata-probe-")).catch((error) => {
    throw refuse(
      "Unavailable",
      path,
      `cannot be written to (${(error as NodeJS.ErrnoException).code})`,
      error,
    );
  });
  try {
    const text = "a".repeat(64 * 1024);
    const file = join(probe, "a");
    await writeFile(file, text);
    {
      await using written = await open(file, "r+");
      await written.sync();
      await written.truncate(text.length * 2);
    }
    const args = ["--reflink=always", file, join(probe, "b")];
    const { status } = await run("cp", args, { signal, expected: [0, 1] });
    const copy = status === 0 ? await readFile(join(probe, "b"), "utf8") : "";
    return copy.startsWith(text);
  } catch (error) {
    signal.throwIfAborted();
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    throw refuse("Unavailable", path, `cannot keep files (${(error as NodeJS.ErrnoException).code})`, error);
  } finally {
    await rm(probe, { recursive: true, force: true });
  }
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}

function refuse(
  code: "Invalid" | "Unsupported" | "Unavailable",
  path: string,
  why: string,
  cause?: unknown,
): StrataError {
  return new StrataError(code, `${path} ${why}`, cause === undefined ? {} : { cause });
}
