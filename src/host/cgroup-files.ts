import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Names of the groups directly below; none where there is no such group. */
export async function childGroups(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (cause) {
    if (isMissing(cause)) return [];
    throw cause;
  }
}

/** All groups below, parents before children. */
export async function subgroups(path: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await childGroups(path)) {
    const child = join(path, name);
    found.push(child, ...(await subgroups(child)));
  }
  return found;
}

/** Empty where there is no such file. */
export async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    if (isMissing(cause)) return "";
    throw cause;
  }
}

/** ENODEV is what a file of a group answers that was removed while the file was open. */
export function isMissing(cause: unknown): boolean {
  return isErrno(cause, "ENOENT") || isErrno(cause, "ENODEV");
}

export function isErrno(cause: unknown, code: string): boolean {
  return cause instanceof Error && "code" in cause && cause.code === code;
}
