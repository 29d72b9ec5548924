/**
 * Copies that somebody else makes, because the disks are in a virtual machine's hands: where the files go, which of them
 * need no copying because blocks can be shared, and their names once they are complete. Files are NAME.new or in
 * `parts.new/` until then, as with copies that are made here.
 */
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { sharesBlocks } from "./copy-ahead.ts";
import { requireRoom } from "./copy-file.ts";
import { complete, exists } from "./data-disks.ts";
import { findDataFile, type PoolPlace, placeDataFile } from "./data-files.ts";
import { finishParts, lentMark, planMemory, planParts } from "./disk-parts.ts";

/**
 * What is copied: a volume, into a storage pool or not, or several disks as parts of one snapshot. `memoryBytes`: the memory
 * of the guest that has them is kept with them, and takes no more than that.
 */
export type CopyRequest =
  | { volume: string; pool?: PoolPlace | undefined }
  | { disks: readonly string[]; volume?: undefined; memoryBytes?: number | undefined };

export interface PlannedCopy {
  from: string;
  to: string;
  /** The file system there shares blocks: copying takes no time that matters. */
  shares: boolean;
}

/** @throws NotFound; Unavailable where there is no room for all that does not share blocks. */
export async function planCopies(top: string, request: CopyRequest, to: string): Promise<PlannedCopy[]> {
  const files =
    request.volume === undefined
      ? await planParts(top, request.disks, to)
      : [await planVolume(top, request.volume, to, request.pool)];
  const planned: PlannedCopy[] = [];
  const places = new Map<number, { directory: string; bytes: number }>();
  if (request.volume === undefined && request.memoryBytes !== undefined) {
    const directory = await planMemory(top, to);
    places.set((await stat(directory)).dev, { directory, bytes: request.memoryBytes });
  }
  for (const file of files) {
    const shares = await sharesBlocks(file);
    planned.push({ ...file, shares });
    if (shares) continue;
    const directory = dirname(file.to);
    const { dev } = await stat(directory);
    const place = places.get(dev) ?? { directory, bytes: 0 };
    places.set(dev, { directory, bytes: place.bytes + (await stat(file.from)).blocks * 512 });
  }
  for (const { directory, bytes } of places.values()) await requireRoom(bytes, directory);
  return planned;
}

/** All are complete. May be repeated. @throws NotFound when nothing was planned. */
export async function finishCopies(top: string, request: CopyRequest, to: string): Promise<void> {
  if (request.volume === undefined) return finishParts(join(top, to));
  const path = await placeDataFile(join(top, to), request.pool);
  if (await exists(path)) return;
  await complete(`${path}.new`, path);
}

async function planVolume(
  top: string,
  volume: string,
  to: string,
  pool: PoolPlace | undefined,
): Promise<{ from: string; to: string }> {
  const from = await findDataFile(join(top, volume));
  await mkdir(join(top, to), { recursive: true, mode: 0o700 });
  // Now: by the time that all is copied, the volume itself may have been checked, which says nothing about the copy.
  if (await exists(join(top, volume, lentMark))) await writeFile(join(top, to, lentMark), "");
  const next = `${await placeDataFile(join(top, to), pool)}.new`;
  await rm(next, { force: true });
  return { from, to: next };
}
