/**
 * Finds files in a root tree as the guest would: symbolic links, absolute ones too, are followed inside the tree only.
 * For trees that do not change meanwhile.
 */
import { constants } from "node:fs";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";

const maxLinks = 40;

/** The host path of a regular file, or undefined when there is none. */
export async function findFile(root: string, path: string): Promise<string | undefined> {
  const found = await resolve(root, path);
  return found?.type === "file" ? found.path : undefined;
}

/** Names in a directory, sorted; empty when there is none. */
export async function namesIn(root: string, path: string): Promise<string[]> {
  const found = await resolve(root, path);
  return found?.type === "directory" ? (await readdir(found.path)).sort() : [];
}

/** The start of a text file, or undefined when there is none. */
export async function readStart(root: string, path: string, maxBytes: number): Promise<string | undefined> {
  const file = await findFile(root, path);
  if (file === undefined) return undefined;
  await using handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(maxBytes), 0, maxBytes, 0);
  return buffer.toString("utf8", 0, bytesRead);
}

async function resolve(
  root: string,
  path: string,
): Promise<{ path: string; type: "file" | "directory" } | undefined> {
  const todo = path.split("/").reverse();
  const done: string[] = [];
  for (let links = 0; ; ) {
    const name = todo.pop();
    if (name === undefined) return { path: join(root, ...done), type: "directory" };
    if (name === "" || name === ".") continue;
    if (name === "..") {
      done.pop();
      continue;
    }
    const full = join(root, ...done, name);
    const stat = await lstat(full).catch(() => undefined);
    if (!stat) return undefined;
    if (stat.isSymbolicLink()) {
      if (++links > maxLinks) return undefined;
      const target = await readlink(full);
      if (target.startsWith("/")) done.length = 0;
      todo.push(...target.split("/").reverse());
    } else if (stat.isDirectory()) done.push(name);
    else if (stat.isFile() && todo.every((rest) => rest === "" || rest === "."))
      return { path: full, type: "file" };
    else return undefined;
  }
}
