/**
 * Directories that repositories may be in: below one of the roots that the operator has named, and nowhere else, whatever
 * links lead where. A root is the operator's; everything below it is made here.
 */
import { mkdir, realpath } from "node:fs/promises";
import { isAbsolute, join, normalize, relative, sep } from "node:path";
import { StrataError } from "../../core/errors.ts";

/**
 * The real path, made where it is missing if `make`. Undefined: it is not there, and was not to be made.
 * @throws Forbidden outside of the roots; Unavailable when the root is missing.
 */
export async function repositoryDirectory(
  path: string,
  roots: readonly string[],
  make: boolean,
): Promise<string | undefined> {
  const root = roots.find((one) => isBelow(normalize(path), normalize(one)));
  if (root === undefined) throw outside(path, roots);
  const realRoot = await realpath(root).catch(() => undefined);
  if (realRoot === undefined) {
    throw new StrataError("Unavailable", `the directory ${root} is not there; is its file system mounted?`);
  }
  const parts = relative(normalize(root), normalize(path)).split(sep);
  let current = realRoot;
  for (const part of parts) {
    const next = join(current, part);
    if (make) {
      await mkdir(next, { mode: 0o700 }).catch((error) => {
        if (error.code !== "EEXIST") throw error;
      });
    }
    const real = await realpath(next).catch(() => undefined);
    if (real === undefined) return undefined;
    if (!isBelow(real, realRoot)) throw outside(path, roots);
    current = real;
  }
  return current;
}

/** Strictly below, by the letters of the paths. */
export function isBelow(path: string, root: string): boolean {
  const way = relative(root, path);
  return way !== "" && !isAbsolute(way) && way !== ".." && !way.startsWith(`..${sep}`);
}

function outside(path: string, roots: readonly string[]): StrataError {
  const allowed =
    roots.length > 0 ? `below ${roots.join(" or ")}` : "none: the operator has named no directory";
  return new StrataError(
    "Forbidden",
    `the directory ${path} is not one that backups may lie in (allowed: ${allowed})`,
  );
}
