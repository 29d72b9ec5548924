import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StrataError } from "../../../core/errors.ts";
import type { DiskFormat } from "./disk-header.ts";
import { nameContent } from "./known-content.ts";
import { readDiskHeader } from "./read-disk-header.ts";
import { qcow2, readerOf, vdi, vhdx, vmdk, vmdkText } from "./testing-disks.ts";
import { parseVmdkDescriptor } from "./vmdk-header.ts";

const header = (file: Buffer, format: DiskFormat) => readDiskHeader(readerOf(file), format, file.length);

describe("the header of a disk image", () => {
  it.each<[DiskFormat, Buffer]>([
    ["qcow2", qcow2()],
    ["qcow2", qcow2((file) => file.writeUInt32BE(2, 4))],
    ["vdi", vdi()],
    ["vmdk", vmdk()],
    ["vmdk", vmdk(vmdkText({ type: "streamOptimized" }))],
    ["vhdx", vhdx()],
    ["raw", Buffer.alloc(1_048_576)],
  ])("of %s says how large the disk is", async (format, file) => {
    expect(await header(file, format)).toEqual({ virtualBytes: 1_048_576 });
  });

  it.each<[string, DiskFormat, Buffer, RegExp]>([
    ["a backing file", "qcow2", qcow2((file) => file.writeBigUInt64BE(512n, 8)), /backing file/],
    ["a data file", "qcow2", qcow2((file) => file.writeBigUInt64BE(4n, 72)), /data in another file/],
    [
      "the name of a data file",
      "qcow2",
      qcow2((file) => {
        file.writeUInt32BE(0x44415441, 104);
        file.writeUInt32BE(11, 108);
        file.write("/etc/shadow", 112);
      }),
      /data in another file/,
    ],
    ["a corrupt mark", "qcow2", qcow2((file) => file.writeBigUInt64BE(2n, 72)), /marked as corrupt/],
    ["encryption", "qcow2", qcow2((file) => file.writeUInt32BE(1, 32)), /is encrypted/],
    ["unknown features", "qcow2", qcow2((file) => file.writeBigUInt64BE(1n << 40n, 72)), /not known here/],
    ["no size", "qcow2", qcow2((file) => file.writeBigUInt64BE(0n, 24)), /has no size/],
    ["absurd clusters", "qcow2", qcow2((file) => file.writeUInt32BE(60, 20)), /clusters of 2\^60/],
    ["a parent", "vdi", vdi((file) => file.writeUInt32LE(4, 76)), /difference to another VDI/],
    ["the name of a parent", "vdi", vdi((file) => file.fill(1, 0x1a8, 0x1b8)), /difference to another VDI/],
    ["a parent", "vhdx", vhdx(true), /difference to another VHDX/],
    ["no metadata", "vhdx", vhdx(false, (file) => file.fill(0, 192 * 1024, 193 * 1024)), /no region table/],
    ["a parent", "vmdk", vmdk(vmdkText({ parent: "1a2b3c4d" })), /difference to another VMDK/],
    [
      "the path of a parent",
      "vmdk",
      vmdk(vmdkText({ more: 'parentFileNameHint="/etc/shadow"' })),
      /difference to another VMDK/,
    ],
    [
      "an extent that is a file of the host",
      "vmdk",
      vmdk(vmdkText({ extents: 'RW 2048 FLAT "/etc/shadow" 0' })),
      /data in other files/,
    ],
    [
      "a second extent",
      "vmdk",
      vmdk(vmdkText({ extents: 'RW 2048 SPARSE "a"\nRW 8 FLAT "/etc/shadow" 0' })),
      /data in other files/,
    ],
    [
      "an extent that nobody can read",
      "vmdk",
      vmdk(vmdkText({ extents: 'RW x "/etc/shadow"' })),
      /cannot be read/,
    ],
    ["no capacity", "vmdk", vmdk(vmdkText(), (file) => file.writeBigUInt64LE(0n, 12)), /has no size/],
    [
      "text alone",
      "vmdk",
      Buffer.from(vmdkText({ extents: 'RW 8 FLAT "/etc/shadow" 0' }).padEnd(600)),
      /other files/,
    ],
    ["another format", "raw", qcow2(), /no raw file; it looks like qcow2/],
    ["another format", "qcow2", vdi(), /no qcow2 file; it looks like vdi/],
    ["no format", "qcow2", Buffer.alloc(512), /no qcow2 file; nothing marks it as one, so it may be raw/],
    ["a cut", "qcow2", qcow2().subarray(0, 90), /is cut off/],
  ])("with %s is refused (%s)", async (_what, format, file, message) => {
    await expect(header(file, format)).rejects.toMatchObject({ code: "Invalid", message });
  });

  it("gives a size or one error, whatever is in it", async () => {
    const files: Record<string, () => Buffer> = { qcow2, vdi, vmdk, vhdx };
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<DiskFormat>("qcow2", "vdi", "vmdk", "vhdx"),
        fc.array(fc.tuple(fc.nat(2047), fc.nat(255)), { maxLength: 12 }),
        async (format, changes) => {
          const file = files[format]?.() ?? Buffer.alloc(0);
          for (const [at, byte] of changes) if (at >= 8) file[at] = byte;
          try {
            expect((await header(file, format)).virtualBytes).toBeGreaterThan(0);
          } catch (error) {
            expect(error).toBeInstanceOf(StrataError);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

it("a VMDK's text tells its extents", () => {
  const text = vmdkText({ type: "monolithicFlat", extents: 'RW 4192256 FLAT "disk-flat.vmdk" 0' });
  expect(parseVmdkDescriptor(Buffer.from(`${text}\0junk`))).toEqual({
    createType: "monolithicFlat",
    extents: [{ access: "RW", sectors: 4192256, type: "FLAT", file: "disk-flat.vmdk", offset: 0 }],
  });
});

it.each<[string | undefined, (disk: Buffer) => void]>([
  ["ext", (disk) => disk.writeUInt16LE(0xef53, 1080)],
  ["xfs", (disk) => disk.write("XFSB", 0)],
  ["btrfs", (disk) => disk.write("_BHRfS_M", 65_600)],
  ["LVM", (disk) => disk.write("LABELONE", 512)],
  ["swap", (disk) => disk.write("SWAPSPACE2", 4086)],
  [undefined, () => {}],
])("a partition with %s is named", async (name, write) => {
  const disk = Buffer.alloc(128 * 1024);
  write(disk);
  expect(await nameContent(readerOf(disk))).toBe(name);
});
