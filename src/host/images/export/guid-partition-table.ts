/** Writes GUID partition tables (UEFI 2.10, chapter 5), with a protective MBR and the copy at the disk's end. Pure. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

export const partitionTypes = {
  efiSystem: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
  biosBoot: "21686148-6449-6E6F-744E-656564454649",
  /** Root of x86-64 (Discoverable Partitions Specification). */
  root: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
} as const;

export interface NewPartition {
  type: string;
  guid: string;
  /** ASCII, at most 36 characters. */
  name: string;
  firstSector: number;
  sectors: number;
}

export interface Piece {
  offsetBytes: number;
  bytes: Buffer;
}

const sector = 512;
const entryCount = 128;
const entryBytes = 128;
const tableSectors = (entryCount * entryBytes) / sector;
/** Sectors that the copy takes at the end. */
export const backupSectors = tableSectors + 1;

/** What has to be written where. `bootCode` is at most 440 bytes, for the first sector. */
export function guidPartitionTable(
  diskSectors: number,
  diskGuid: string,
  partitions: readonly NewPartition[],
  bootCode: Buffer,
): Piece[] {
  const entries = Buffer.alloc(entryCount * entryBytes);
  for (const [index, { type, guid, name, firstSector, sectors }] of partitions.entries()) {
    const entry = entries.subarray(index * entryBytes, (index + 1) * entryBytes);
    guidBytes(type).copy(entry);
    guidBytes(guid).copy(entry, 16);
    entry.writeBigUInt64LE(BigInt(firstSector), 32);
    entry.writeBigUInt64LE(BigInt(firstSector + sectors - 1), 40);
    entry.write(name, 56, "utf16le");
  }
  const last = diskSectors - 1;
  const header = (own: number, other: number, table: number) => {
    const block = Buffer.alloc(sector);
    block.write("EFI PART", 0, "latin1");
    block.writeUInt32LE(0x10000, 8);
    block.writeUInt32LE(92, 12);
    block.writeBigUInt64LE(BigInt(own), 24);
    block.writeBigUInt64LE(BigInt(other), 32);
    block.writeBigUInt64LE(BigInt(2 + tableSectors), 40);
    block.writeBigUInt64LE(BigInt(last - backupSectors), 48);
    guidBytes(diskGuid).copy(block, 56);
    block.writeBigUInt64LE(BigInt(table), 72);
    block.writeUInt32LE(entryCount, 80);
    block.writeUInt32LE(entryBytes, 84);
    block.writeUInt32LE(crc32(entries), 88);
    block.writeUInt32LE(crc32(block.subarray(0, 92)), 16);
    return block;
  };
  return [
    { offsetBytes: 0, bytes: protectiveMbr(diskSectors, bootCode) },
    { offsetBytes: sector, bytes: header(1, last, 2) },
    { offsetBytes: 2 * sector, bytes: entries },
    { offsetBytes: (last - tableSectors) * sector, bytes: entries },
    { offsetBytes: last * sector, bytes: header(last, 1, last - tableSectors) },
  ];
}

function protectiveMbr(diskSectors: number, bootCode: Buffer): Buffer {
  const block = Buffer.alloc(sector);
  bootCode.copy(block, 0, 0, 440);
  block.writeUInt32LE(0x00020000, 446); // not active; begins at cylinder 0, head 0, sector 2
  block[450] = 0xee;
  block.fill(0xff, 451, 454);
  block.writeUInt32LE(1, 454);
  block.writeUInt32LE(Math.min(diskSectors - 1, 0xffffffff), 458);
  block.writeUInt16LE(0xaa55, 510);
  return block;
}

/** A GUID (version 8, RFC 9562) that is a function of the text. */
export function guidOf(text: string): string {
  const bytes = createHash("sha256").update(text).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")
    .toUpperCase();
}

function guidBytes(guid: string): Buffer {
  const hex = guid.replaceAll("-", "");
  const reversed = (from: number, to: number) => Buffer.from(hex.slice(from, to), "hex").reverse();
  return Buffer.concat([
    reversed(0, 8),
    reversed(8, 12),
    reversed(12, 16),
    Buffer.from(hex.slice(16), "hex"),
  ]);
}
