/** Hyper-V's VHDX. Format: [MS-VHDX] 2.2 (header section) and 2.6 (metadata region). */
import type { ReadAt } from "../partition-table.ts";
import { type DiskHeader, damagedDisk, readExactly, refuseDisk, safeNumber } from "./disk-header.ts";

/** GUIDs as they lie on the disk. */
const guids = {
  metadataRegion: "06a27c8b90479a4bb8fe575f050f886e",
  fileParameters: "3767a1ca36fa434db3b633f0aa44e76b",
  virtualDiskSize: "2442a52f1bcd7648b2115dbed83bf4b8",
  parentLocator: "2d5fd3a80bb34d45abf7d3d84834ab0c",
} as const;
const regionTableAt = 192 * 1024;
const tableBytes = 64 * 1024;
const maxRegions = 2047;
const maxItems = 2047;

/** @throws Invalid for differencing disks and for what is damaged. */
export async function readVhdxHeader(read: ReadAt): Promise<DiskHeader> {
  const metadataAt = await findMetadata(await readExactly(read, regionTableAt, tableBytes, "vhdx"));
  const table = await readExactly(read, metadataAt, tableBytes, "vhdx");
  if (table.toString("latin1", 0, 8) !== "metadata") throw damagedDisk("vhdx", "has no metadata table");
  const items = readItems(table);
  const value = async (guid: string, length: number) => {
    const offset = items.get(guid);
    if (offset === undefined) throw damagedDisk("vhdx", "lacks a part of its metadata");
    return readExactly(read, metadataAt + offset, length, "vhdx");
  };
  const hasParent = ((await value(guids.fileParameters, 8)).readUInt32LE(4) & 2) !== 0;
  if (hasParent || items.has(guids.parentLocator)) {
    throw refuseDisk("is only the difference to another VHDX; merge it with Hyper-V or Convert-VHD first");
  }
  const size = (await value(guids.virtualDiskSize, 8)).readBigUInt64LE(0);
  return { virtualBytes: safeNumber(size, "vhdx") };
}

function findMetadata(table: Buffer): number {
  const count = table.readUInt32LE(8);
  if (table.toString("latin1", 0, 4) !== "regi" || count > maxRegions)
    throw damagedDisk("vhdx", "has no region table");
  for (let at = 16, index = 0; index < count && at + 32 <= table.length; index++, at += 32) {
    if (table.toString("hex", at, at + 16) === guids.metadataRegion)
      return safeNumber(table.readBigUInt64LE(at + 16), "vhdx");
  }
  throw damagedDisk("vhdx", "has no metadata region");
}

function readItems(table: Buffer): Map<string, number> {
  const count = table.readUInt16LE(10);
  if (count > maxItems) throw damagedDisk("vhdx", "has a damaged metadata table");
  const items = new Map<string, number>();
  for (let at = 32, index = 0; index < count && at + 32 <= table.length; index++, at += 32) {
    items.set(table.toString("hex", at, at + 16), table.readUInt32LE(at + 16));
  }
  return items;
}
