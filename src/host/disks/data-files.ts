/**
 * Where the file of a volume lies: `DIR/UID/data.raw`, or in a storage pool, and then `data.raw` is a link to
 * `POOL/UID.raw`. The link is made before the file and removed after it, so that nothing in a pool is ever unknown here.
 * A pool's directory is used only while its mark is in it: an empty directory, because a file system is not mounted, is
 * never taken for the pool, and a volume never made anew there.
 */
import { lstat, mkdir, readFile, readlink, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { StrataError } from "../../core/errors.ts";

/** A storage pool's directory on this host. */
export interface PoolPlace {
  uid: string;
  name: string;
  path: string;
}

/** Directories of pools that somebody has said are lost for good: they are not touched, whatever is seen there. */
export interface LostPools {
  has(directory: string): boolean;
  /** Told of each file that is forgotten, and stays where it is if there is anything there. */
  left(path: string): void;
}

/** Names the pool, by its uid, whose directory this is. */
export const poolMark = "strata-pool.json";

const suffix = ".raw";

/** Of a volume's or a snapshot's file in a pool; undefined for anything else there. */
export function uidOfPoolFile(name: string): string | undefined {
  return /^([0-9a-z][0-9a-z-]{0,63})\.raw(\.new)?$/.exec(name)?.[1];
}

/**
 * The path of the volume's file, whether it is there or not yet; the way to it is made. @throws Unavailable while its pool
 * is not there; Conflict when it is elsewhere already.
 */
export async function placeDataFile(directory: string, pool: PoolPlace | undefined): Promise<string> {
  const link = join(directory, "data.raw");
  const found = await lookUp(link);
  const wanted = pool && join(pool.path, `${uidOf(directory)}${suffix}`);
  if (found === undefined) {
    if (!pool || wanted === undefined) return link;
    await requireMark(pool.path, pool);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await symlink(wanted, link);
    return wanted;
  }
  if (found === "file") return link;
  if (wanted !== undefined && wanted !== found) {
    throw new StrataError("Conflict", `the volume is in ${dirname(found)} already, not in ${pool?.path}`);
  }
  await requireMark(dirname(found), pool);
  return found;
}

/** The path that the file has or had, whether its pool is there or not. */
export async function placeOfData(directory: string): Promise<string | undefined> {
  const link = join(directory, "data.raw");
  const found = await lookUp(link);
  return found === "file" ? link : found;
}

/** The path of the file as it is now. @throws NotFound without one; Unavailable while its pool is not there. */
export async function findDataFile(directory: string): Promise<string> {
  const link = join(directory, "data.raw");
  const found = await lookUp(link);
  if (found === undefined) throw new StrataError("NotFound", "the volume has nothing on this host");
  if (found === "file") return link;
  await requireMark(dirname(found), undefined);
  return found;
}

/** The pool whose directory the file is in; undefined for one that is in none. */
export async function poolOf(file: string): Promise<PoolPlace | undefined> {
  const path = dirname(file);
  const uid = await readMark(path);
  return uid === undefined ? undefined : { uid, name: path, path };
}

/**
 * Absent is success. In a pool that is lost, nothing is looked at or changed.
 * @throws Unavailable while its pool is not there, and not lost.
 */
export async function dropDataFile(directory: string, lost?: LostPools): Promise<void> {
  const link = join(directory, "data.raw");
  const found = await lookUp(link);
  if (found === undefined || found === "file") return;
  if (lost?.has(dirname(found))) return lost.left(found);
  await requireMark(dirname(found), undefined);
  for (const path of [found, `${found}.new`]) await rm(path, { force: true });
}

/** The uid that the directory is marked with, if it is marked. */
export async function readMark(directory: string): Promise<string | undefined> {
  const text = await readFile(join(directory, poolMark), "utf8").catch((error) => {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR")) return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  try {
    return String((JSON.parse(text) as { uid?: unknown }).uid);
  } catch {
    return "unreadable";
  }
}

async function requireMark(directory: string, pool: PoolPlace | undefined): Promise<void> {
  const mark = await readMark(directory);
  if (mark !== undefined && (pool === undefined || mark === pool.uid)) return;
  const name = pool ? `storage pool "${pool.name}"` : "its storage pool";
  throw new StrataError(
    "Unavailable",
    mark === undefined
      ? `${name} is not there: ${directory} has no ${poolMark}; is its file system mounted?`
      : `${name} is not there: ${directory} is another pool's`,
  );
}

/** Where the link leads; `file` when it is none. */
async function lookUp(link: string): Promise<string | "file" | undefined> {
  try {
    return (await lstat(link)).isSymbolicLink() ? await readlink(link) : "file";
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

function uidOf(directory: string): string {
  return directory.slice(directory.lastIndexOf("/") + 1);
}

function hasErrno(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}
