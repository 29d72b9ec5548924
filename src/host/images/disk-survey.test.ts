import { describe, expect, it, test } from "vitest";
import { surveyDisk } from "./disk-survey.ts";
import { backupSectors, guidOf, guidPartitionTable, partitionTypes } from "./export/guid-partition-table.ts";

const sectorsPerMib = 2048;
const diskMib = 8;

interface Content {
  type: string;
  /** What lies where in the partition of 1 MiB. */
  marks?: readonly [offset: number, bytes: string][];
}

const vfat: Content["marks"] = [[82, "FAT32   "]];
const efi = { type: partitionTypes.efiSystem, marks: vfat };
const bios = { type: partitionTypes.biosBoot };
const root = (...marks: [number, string][]) => ({ type: partitionTypes.root, marks });
const bootCode = Buffer.alloc(440, 0x90);
const noCode = Buffer.alloc(440);

function gptDisk(contents: readonly Content[], code: Buffer, sizeMib = diskMib): Buffer {
  const disk = Buffer.alloc(sizeMib * 1024 ** 2);
  const partitions = contents.map(({ type }, index) => ({
    ...{ type, guid: guidOf(`${index}`), name: `p${index}` },
    ...{ firstSector: (index + 1) * sectorsPerMib, sectors: sectorsPerMib },
  }));
  for (const { offsetBytes, bytes } of guidPartitionTable(
    sizeMib * sectorsPerMib,
    guidOf("disk"),
    partitions,
    code,
  ))
    bytes.copy(disk, offsetBytes);
  for (const [index, { marks = [] }] of contents.entries()) {
    for (const [offset, bytes] of marks) disk.write(bytes, (index + 1) * 1024 ** 2 + offset, "latin1");
  }
  expect(contents.length).toBeLessThan(sizeMib - 1 - backupSectors / sectorsPerMib);
  return disk;
}

function mbrDisk(types: readonly number[], code: Buffer): Buffer {
  const disk = Buffer.alloc(diskMib * 1024 ** 2);
  code.copy(disk);
  for (const [index, type] of types.entries()) {
    disk[446 + index * 16 + 4] = type;
    disk.writeUInt32LE((index + 1) * sectorsPerMib, 446 + index * 16 + 8);
    disk.writeUInt32LE(sectorsPerMib, 446 + index * 16 + 12);
    if (type === 0xef) disk.write("FAT32   ", (index + 1) * 1024 ** 2 + 82);
  }
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

const survey = (disk: Buffer) =>
  surveyDisk(async (offset, length) => disk.subarray(offset, offset + length), disk.length);

describe("the firmware that a disk starts by", () => {
  it.each<[string, Buffer, "bios" | "uefi" | undefined]>([
    ["GPT with GRUB's partition and code", gptDisk([bios, root()], bootCode), "bios"],
    ["GPT with both loaders", gptDisk([bios, efi, root()], bootCode), "bios"],
    ["GPT with an EFI system partition", gptDisk([efi, root()], noCode), "uefi"],
    ["GPT with one, and code that some tool left", gptDisk([efi, root()], bootCode), "uefi"],
    ["GPT with an empty EFI system partition", gptDisk([{ ...efi, marks: [] }, root()], noCode), undefined],
    ["GPT without any loader", gptDisk([root()], noCode), undefined],
    ["MBR with code", mbrDisk([0x83], bootCode), "bios"],
    ["MBR with code and an EFI system partition", mbrDisk([0xef, 0x83], bootCode), "bios"],
    ["MBR with an EFI system partition", mbrDisk([0xef, 0x83], noCode), "uefi"],
    ["nothing", Buffer.alloc(1024 ** 2), undefined],
  ])("%s", async (_what, disk, firmware) => {
    expect((await survey(disk)).firmware).toBe(firmware);
  });
});

it("says what a tree of the root alone would lack, and why there is no root", async () => {
  const xfs: [number, string] = [0, "XFSB"];
  const swap = {
    type: "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    marks: [[4086, "SWAPSPACE2"]] as [number, string][],
  };
  const found = await survey(
    gptDisk([bios, efi, swap, root(xfs), root([512, "LABELONE"]), root()], bootCode),
  );
  expect(found.elsewhere).toEqual([
    "a partition with xfs",
    "a partition with LVM",
    "a partition of an unknown kind",
  ]);
  expect(found.fileSystems).toBeUndefined();
  expect(found.problem).toMatchObject({
    code: "Unsupported",
    message: expect.stringMatching(
      /partitions: 6, with vfat, swap, xfs, LVM\); ext2, ext3 and ext4 are read/,
    ),
  });
});

it("a root that is damaged is the problem that is told", async () => {
  const found = await survey(gptDisk([bios, root([1080, "\x53\xef"])], bootCode));
  expect(found.problem).toMatchObject({
    code: "Invalid",
    message: expect.stringMatching(/damaged superblock/),
  });
});

test.each([
  [16, "Invalid", /damaged superblock/],
  [17, "Unsupported", /17 partitions .* at most 16/],
])("of %i file systems", async (count, code, message) => {
  const found = await survey(
    gptDisk(
      Array.from({ length: count }, () => root([1080, "\x53\xef"])),
      noCode,
      20,
    ),
  );
  expect(found.problem).toMatchObject({ code, message: expect.stringMatching(message) });
});
