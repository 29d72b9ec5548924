import { expect, it } from "vitest";
import { readPartitions } from "../partition-table.ts";
import { backupSectors, guidOf, guidPartitionTable, partitionTypes } from "./guid-partition-table.ts";

const diskSectors = 1000;
const partitions = [
  { type: partitionTypes.biosBoot, guid: guidOf("a"), name: "loader", firstSector: 34, sectors: 100 },
  {
    type: partitionTypes.root,
    guid: guidOf("b"),
    name: "root",
    firstSector: 134,
    sectors: 1000 - 134 - backupSectors,
  },
];

function diskOf(code = Buffer.alloc(440, 0x90)): Buffer {
  const disk = Buffer.alloc(diskSectors * 512);
  for (const { offsetBytes, bytes } of guidPartitionTable(diskSectors, guidOf("disk"), partitions, code))
    bytes.copy(disk, offsetBytes);
  return disk;
}

it("is read back by the reader of strangers' disks", async () => {
  const disk = diskOf();
  const read = async (offset: number, length: number) => disk.subarray(offset, offset + length);
  expect(await readPartitions(read, disk.length)).toEqual([
    { type: partitionTypes.biosBoot, offsetBytes: 34 * 512, sizeBytes: 100 * 512 },
    { type: partitionTypes.root, offsetBytes: 134 * 512, sizeBytes: (1000 - 134 - backupSectors) * 512 },
  ]);
  expect(disk.subarray(0, 440)).toEqual(Buffer.alloc(440, 0x90));
});

it("has the same table at the end, whose header points back", () => {
  const disk = diskOf();
  const last = disk.subarray(999 * 512);
  expect(last.toString("latin1", 0, 8)).toBe("EFI PART");
  expect([last.readBigUInt64LE(24), last.readBigUInt64LE(32)]).toEqual([999n, 1n]);
  const table = Number(last.readBigUInt64LE(72)) * 512;
  expect(disk.subarray(table, table + 16_384)).toEqual(disk.subarray(1024, 1024 + 16_384));
  expect(Number(last.readBigUInt64LE(48))).toBe(999 - backupSectors);
});

it("names GUIDs by a text, as everybody writes them", () => {
  expect(guidOf("x")).toMatch(/^[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$/);
  expect(guidOf("x")).not.toBe(guidOf("y"));
});
