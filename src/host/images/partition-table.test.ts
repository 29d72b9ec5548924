import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ReadAt, readPartitions } from "./partition-table.ts";

const diskBytes = 64 * 1024;
const readerOf =
  (disk: Buffer): ReadAt =>
  async (offset, length) =>
    disk.subarray(offset, offset + length);

function mbr(entries: readonly [type: number, start: number, sectors: number][]): Buffer {
  const block = Buffer.alloc(512);
  for (const [index, [type, start, sectors]] of entries.entries()) {
    const at = 446 + index * 16;
    block[at + 4] = type;
    block.writeUInt32LE(start, at + 8);
    block.writeUInt32LE(sectors, at + 12);
  }
  block.writeUInt16LE(0xaa55, 510);
  return block;
}

function gptDisk(
  partitions: readonly [first: number, last: number][],
  count = 128,
  entryBytes = 128,
): Buffer {
  const disk = Buffer.alloc(diskBytes);
  mbr([[0xee, 1, 127]]).copy(disk);
  const header = disk.subarray(512, 1024);
  header.write("EFI PART", 0, "latin1");
  header.writeUInt32LE(0x10000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(2n, 72);
  header.writeUInt32LE(count, 80);
  header.writeUInt32LE(entryBytes, 84);
  for (const [index, [first, last]] of partitions.entries()) {
    const at = 1024 + index * entryBytes;
    disk.fill(0xab, at, at + 16);
    disk.writeBigUInt64LE(BigInt(first), at + 32);
    disk.writeBigUInt64LE(BigInt(last), at + 40);
  }
  header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
  return disk;
}

const partition = (start: number, sectors: number, type = "ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB") => ({
  offsetBytes: start * 512,
  sizeBytes: sectors * 512,
  type,
});

describe("readPartitions", () => {
  it("reads GPT", async () => {
    const disk = gptDisk([
      [40, 49],
      [50, 50],
    ]);
    expect(await readPartitions(readerOf(disk), diskBytes)).toEqual([partition(40, 10), partition(50, 1)]);
  });

  it("reads MBR, logical partitions included", async () => {
    const disk = Buffer.alloc(diskBytes);
    mbr([
      [0x83, 2, 4],
      [0x05, 10, 50],
    ]).copy(disk);
    mbr([
      [0x83, 1, 3],
      [0x05, 20, 20],
    ]).copy(disk, 10 * 512);
    mbr([[0x83, 2, 5]]).copy(disk, 30 * 512);
    expect(await readPartitions(readerOf(disk), diskBytes)).toEqual([
      partition(2, 4, "83"),
      partition(11, 3, "83"),
      partition(32, 5, "83"),
    ]);
  });

  it("names a type as everybody writes it", async () => {
    const disk = gptDisk([[40, 49]]);
    Buffer.from("28732ac11ff8d211ba4b00a0c93ec93b", "hex").copy(disk, 1024);
    expect((await readPartitions(readerOf(disk), diskBytes))[0]?.type).toBe(
      "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    );
  });

  it("leaves out what lies outside the disk or is empty", async () => {
    const disk = gptDisk([
      [100, 200],
      [60, 50],
      [0, 10],
      [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
      [60, 61],
    ]);
    expect(await readPartitions(readerOf(disk), diskBytes)).toEqual([partition(60, 2)]);
  });

  it("finds none without a table or with a damaged one", async () => {
    expect(await readPartitions(readerOf(Buffer.alloc(diskBytes)), diskBytes)).toEqual([]);
    expect(await readPartitions(readerOf(Buffer.alloc(10)), 10)).toEqual([]);
    const damaged = gptDisk([[40, 49]]);
    damaged[512 + 72] = 3;
    expect(await readPartitions(readerOf(damaged), diskBytes)).toEqual([]);
    expect(await readPartitions(readerOf(gptDisk([[40, 49]], 0xffff)), diskBytes)).toEqual([]);
    expect(await readPartitions(readerOf(gptDisk([[40, 49]], 128, 0)), diskBytes)).toEqual([]);
  });

  it("ends when logical partitions form a loop", async () => {
    const disk = Buffer.alloc(diskBytes);
    mbr([[0x05, 10, 50]]).copy(disk);
    mbr([
      [0x83, 1, 3],
      [0x05, 0, 20],
    ]).copy(disk, 10 * 512);
    expect((await readPartitions(readerOf(disk), diskBytes)).length).toBeLessThan(100);
  });

  it("never leaves the disk, whatever the table says", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(2047), fc.nat(255)), { maxLength: 30 }),
        fc.boolean(),
        async (changes, gpt) => {
          const disk = gpt
            ? gptDisk([[40, 49]])
            : Buffer.concat([
                mbr([
                  [0x0f, 2, 9],
                  [0x83, 20, 9],
                ]),
                Buffer.alloc(diskBytes - 512),
              ]);
          for (const [at, value] of changes) disk[at] = value;
          for (const { offsetBytes, sizeBytes } of await readPartitions(readerOf(disk), diskBytes)) {
            expect(offsetBytes).toBeGreaterThanOrEqual(512);
            expect(offsetBytes + sizeBytes).toBeLessThanOrEqual(diskBytes);
          }
        },
      ),
    );
  });
});
