/**
 * What a check finds damaged in a repository's directory is put aside, so that restic stores those pieces anew: as long as
 * its index lists a pack, damaged or not, a save of the same data refers to it and adds nothing. Nothing is deleted.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";

/** restic looks into no directory of this name. */
const asideName = "damaged-packs";

/** Ids of the packs that `restic check` complains of. */
export function complainedPacks(output: string): string[] {
  const found = output.matchAll(/\bpack (?:ID does not match, want )?([0-9a-f]{64})\b/gi);
  return [...new Set([...found].map(([, id = ""]) => id))];
}

/**
 * Puts those aside whose content is not what their name says: the SHA-256 of it. True when none of them is in the way any
 * more; false when one cannot be read at all, or is as it should be and yet was complained of. Idempotent.
 */
export async function putAside(repository: string, packs: readonly string[]): Promise<boolean> {
  let all = true;
  for (const id of packs) {
    const path = join(repository, "data", id.slice(0, 2), id);
    const found = await contentId(path);
    if (found === "none") continue;
    if (found === undefined || found === id) {
      all = false;
      continue;
    }
    await mkdir(join(repository, asideName), { recursive: true, mode: 0o700 });
    await rename(path, join(repository, asideName, id));
  }
  return all;
}

/** `none`: there is no such file. Undefined: it cannot be read. */
async function contentId(path: string): Promise<string | undefined> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path)) hash.update(chunk);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? "none" : undefined;
  }
  return hash.digest("hex");
}
