/**
 * What a disk image says about itself, read by code of our own before any tool opens the file: how large the disk is,
 * and that all of it is in this one file. Formats name backing files, extents and data files by path, and a tool that
 * follows such a path would read the host's own files into an image; whatever names another file is refused here.
 */
import { StrataError } from "../../../core/errors.ts";
import type { ReadAt } from "../partition-table.ts";

export const diskFormats = ["qcow2", "raw", "vmdk", "vdi", "vhdx"] as const;
export type DiskFormat = (typeof diskFormats)[number];

export interface DiskHeader {
  /** Size of the disk that a guest sees. */
  virtualBytes: number;
}

export const sectorBytes = 512;

/** Formats by the bytes that a file begins with. */
const magics: readonly [format: string, offset: number, bytes: string][] = [
  ["qcow2", 0, "QFI\xfb"],
  ["vmdk", 0, "KDMV"],
  ["a VMDK descriptor", 0, "# Disk DescriptorFile"],
  ["a VMDK of ESX (COWD)", 0, "COWD"],
  ["vdi", 64, "\x7f\x10\xda\xbe"],
  ["vhdx", 0, "vhdxfile"],
  ["VHD", 0, "conectix"],
  ["QED", 0, "QED\0"],
  ["LUKS", 0, "LUKS\xba\xbe"],
  ["ova", 257, "ustar"],
];

/** The format that the first 512 bytes speak of, or undefined: a raw disk has no mark. */
export function formatByMagic(start: Buffer): string | undefined {
  return magics.find(([, at, bytes]) => start.toString("latin1", at, at + bytes.length) === bytes)?.[0];
}

/** A field's value as a number that can be computed with. @throws Invalid above 2^53. */
export function safeNumber(value: bigint, format: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw damagedDisk(format, "holds a number that no disk has");
}

/** Exactly `length` bytes. @throws Invalid when the file ends before. */
export async function readExactly(
  read: ReadAt,
  offset: number,
  length: number,
  format: string,
): Promise<Buffer> {
  const bytes = await read(offset, length);
  if (bytes.length === length) return bytes;
  throw damagedDisk(format, "is cut off");
}

export function refuseDisk(what: string): StrataError {
  return new StrataError("Invalid", `the disk image ${what}`);
}

export function damagedDisk(format: string, what: string): StrataError {
  return new StrataError("Invalid", `the ${format} disk image is damaged: it ${what}`);
}
