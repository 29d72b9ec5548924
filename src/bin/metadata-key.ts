import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Random } from "../core/random.ts";

const keyBytes = 32;

/**
 * What sessions of the metadata service are signed with: made once and kept, for root only, so that the sessions of guests
 * outlive the daemon. Who removes the file ends them all with the daemon's next start.
 */
export async function ensureMetadataKey(stateDir: string, random: Random): Promise<Uint8Array> {
  const file = join(stateDir, "metadata.key");
  const known = await readFile(file).catch(() => undefined);
  if (known?.length === keyBytes) return known;
  const key = random.bytes(keyBytes);
  await writeFile(`${file}.new`, key, { mode: 0o600 });
  await rename(`${file}.new`, file);
  return key;
}
