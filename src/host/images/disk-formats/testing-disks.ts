/** Headers of disk images, written field by field from the formats' descriptions: right ones, to be made wrong by tests. */
import type { ReadAt } from "../partition-table.ts";

export const readerOf =
  (file: Buffer): ReadAt =>
  async (offset, length) =>
    file.subarray(offset, offset + length);

export function qcow2(change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(65_536);
  file.write("QFI\xfb", 0, "latin1");
  file.writeUInt32BE(3, 4);
  file.writeUInt32BE(16, 20);
  file.writeBigUInt64BE(1_048_576n, 24);
  file.writeUInt32BE(104, 100);
  change(file);
  return file;
}

export function vdi(change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(1024);
  file.write("<<< Oracle VM VirtualBox Disk Image >>>\n", 0, "latin1");
  file.writeUInt32LE(0xbeda107f, 64);
  file.writeUInt32LE(0x00010001, 68);
  file.writeUInt32LE(1, 76);
  file.writeBigUInt64LE(1_048_576n, 0x170);
  change(file);
  return file;
}

export const vmdkText = (lines: Partial<Record<"type" | "parent" | "extents" | "more", string>> = {}) =>
  [
    "# Disk DescriptorFile",
    "version=1",
    "CID=1f2e3d4c",
    `parentCID=${lines.parent ?? "ffffffff"}`,
    `createType="${lines.type ?? "monolithicSparse"}"`,
    lines.extents ?? 'RW 2048 SPARSE "disk.vmdk"',
    lines.more ?? 'ddb.adapterType = "lsilogic"',
    "",
  ].join("\n");

export function vmdk(text = vmdkText(), change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(65_536);
  file.write("KDMV", 0, "latin1");
  file.writeUInt32LE(1, 4);
  file.writeBigUInt64LE(2048n, 12);
  file.writeBigUInt64LE(1n, 28);
  file.writeBigUInt64LE(20n, 36);
  file.write(text, 512);
  change(file);
  return file;
}

export function vhdx(hasParent = false, change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(3 * 1024 ** 2);
  const at = 1024 ** 2;
  file.write("vhdxfile", 0, "latin1");
  file.write("regi", 192 * 1024, "latin1");
  file.writeUInt32LE(1, 192 * 1024 + 8);
  file.write("06a27c8b90479a4bb8fe575f050f886e", 192 * 1024 + 16, "hex");
  file.writeBigUInt64LE(BigInt(at), 192 * 1024 + 32);
  file.write("metadata", at, "latin1");
  file.writeUInt16LE(2, at + 10);
  file.write("3767a1ca36fa434db3b633f0aa44e76b", at + 32, "hex");
  file.writeUInt32LE(65_536, at + 48);
  file.write("2442a52f1bcd7648b2115dbed83bf4b8", at + 64, "hex");
  file.writeUInt32LE(65_544, at + 80);
  file.writeUInt32LE(hasParent ? 2 : 0, at + 65_540);
  file.writeBigUInt64LE(1_048_576n, at + 65_544);
  change(file);
  return file;
}
