/** The writable layer of a container's root. */
import { chmod, chown, lstat, mkdir, stat, truncate } from "node:fs/promises";
import { join } from "node:path";

/** Nothing runs in the tree. What its guest made of the directory or of the file is looked at, and never followed. */
export async function emptyMachineId(upper: string): Promise<void> {
  const path = join(upper, "etc/machine-id");
  const directory = await lstat(join(upper, "etc")).catch(absentAs(undefined));
  const file = directory?.isDirectory() ? await lstat(path).catch(absentAs(undefined)) : undefined;
  if (file?.isFile()) await truncate(path);
}

/** The merged root shows owner and mode of the upper directory, so these come from the tree. */
export async function ensureLayer(path: string, lower: string, idBase: number): Promise<string> {
  const { mode, uid, gid } = await stat(lower);
  await mkdir(path, { recursive: true });
  await chown(path, path.endsWith("/work") ? idBase : uid, gid);
  await chmod(path, mode & 0o7777);
  return path;
}

/** A value where there is nothing, instead of an error. */
export function absentAs<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return value;
    throw error;
  };
}
