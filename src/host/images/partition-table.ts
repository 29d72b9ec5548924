/**
 * Reads GPT (UEFI 2.10, chapter 5) and MBR partition tables of disk images from strangers: every number is checked
 * against the disk before it is used.
 */
import { crc32 } from "node:zlib";

export interface Partition {
  offsetBytes: number;
  sizeBytes: number;
  /** The type's GUID in capitals, as GPT has it, or the two hexadecimal digits of an MBR. */
  type: string;
}

/** Reads exactly `length` bytes, or fewer at the end of the disk. */
export type ReadAt = (offset: number, length: number) => Promise<Buffer>;

const sector = 512;
const maxGptEntries = 1024;
const maxLogicalPartitions = 60;
const protectiveType = 0xee;
const extendedTypes = new Set([0x05, 0x0f, 0x85]);

/** Partitions in the table's order; none when there is no table. Damaged tables give fewer partitions, never an error. */
export async function readPartitions(read: ReadAt, diskBytes: number): Promise<Partition[]> {
  const mbr = await read(0, sector);
  if (mbr.length < sector || mbr.readUInt16LE(510) !== 0xaa55) return [];
  const primary = mbrEntries(mbr);
  const protective = primary.some(({ type }) => type === protectiveType);
  const found = protective ? await readGpt(read, diskBytes) : await readMbr(read, primary, diskBytes);
  return found.filter(
    ({ offsetBytes, sizeBytes }) =>
      offsetBytes >= sector && sizeBytes > 0 && offsetBytes + sizeBytes <= diskBytes,
  );
}

async function readGpt(read: ReadAt, diskBytes: number): Promise<Partition[]> {
  const header = await read(sector, sector);
  if (header.length < sector || header.toString("latin1", 0, 8) !== "EFI PART") return [];
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < 92 || headerBytes > sector) return [];
  const unsigned = Buffer.from(header.subarray(0, headerBytes));
  unsigned.writeUInt32LE(0, 16); // the checksum covers the header with this field zero
  if (crc32(unsigned) !== header.readUInt32LE(16)) return [];
  const tableOffset = toNumber(header.readBigUInt64LE(72)) * sector;
  const count = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  if (count > maxGptEntries || entryBytes < 128 || entryBytes > 4096 || entryBytes % 8 !== 0) return [];
  if (!(tableOffset + count * entryBytes <= diskBytes)) return [];
  const table = await read(tableOffset, count * entryBytes);
  const partitions: Partition[] = [];
  for (let at = 0; at + entryBytes <= table.length; at += entryBytes) {
    const unused = table.subarray(at, at + 16).every((byte) => byte === 0);
    const first = toNumber(table.readBigUInt64LE(at + 32));
    const last = toNumber(table.readBigUInt64LE(at + 40));
    if (unused || !(last >= first)) continue;
    const type = guidText(table.subarray(at, at + 16));
    partitions.push({ offsetBytes: first * sector, sizeBytes: (last - first + 1) * sector, type });
  }
  return partitions;
}

interface MbrEntry {
  type: number;
  start: number;
  sectors: number;
}

function mbrEntries(block: Buffer): MbrEntry[] {
  return [446, 462, 478, 494].map((at) => ({
    type: block[at + 4] ?? 0,
    start: block.readUInt32LE(at + 8),
    sectors: block.readUInt32LE(at + 12),
  }));
}

async function readMbr(read: ReadAt, primary: readonly MbrEntry[], diskBytes: number): Promise<Partition[]> {
  const partitions: Partition[] = [];
  const add = (start: number, sectors: number, type: number) =>
    partitions.push({
      offsetBytes: start * sector,
      sizeBytes: sectors * sector,
      type: type.toString(16).padStart(2, "0"),
    });
  for (const entry of primary) {
    if (entry.type === 0) continue;
    if (!extendedTypes.has(entry.type)) {
      add(entry.start, entry.sectors, entry.type);
      continue;
    }
    // Logical partitions are a chain of tables; a loop in it ends at the limit.
    let at = entry.start;
    for (let count = 0; count < maxLogicalPartitions && at * sector + sector <= diskBytes; count++) {
      const block = await read(at * sector, sector);
      if (block.length < sector || block.readUInt16LE(510) !== 0xaa55) break;
      const [logical, next] = mbrEntries(block);
      if (logical && logical.type !== 0) add(at + logical.start, logical.sectors, logical.type);
      if (!next || !extendedTypes.has(next.type)) break;
      at = entry.start + next.start;
    }
  }
  return partitions;
}

/** The first three fields lie on disk with the lowest byte first (UEFI 2.10, appendix A). */
function guidText(bytes: Buffer): string {
  const field = (from: number, to: number) => Buffer.from(bytes.subarray(from, to)).reverse().toString("hex");
  const rest = bytes.toString("hex", 8);
  return `${field(0, 4)}-${field(4, 6)}-${field(6, 8)}-${rest.slice(0, 4)}-${rest.slice(4)}`.toUpperCase();
}

/** NaN, which fails every comparison, for what no disk can have. */
function toNumber(value: bigint): number {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : Number.NaN;
}
