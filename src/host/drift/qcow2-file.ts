/**
 * Reads qcow2 files whose headers a guest's QEMU could have written: every number is checked before it is used, and no
 * other file that the header names is opened. Format: https://www.qemu.org/docs/master/interop/qcow2.html
 */
import type { FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import { inflateRaw } from "node:zlib";
import { StrataError } from "../../core/errors.ts";
import { reader } from "../images/disk-import.ts";
import type { ReadAt } from "../images/partition-table.ts";

const magic = 0x514649fb;
const incompatible = { dirty: 1n, compression: 8n } as const;
const maxL1Bytes = 32 * 1024 ** 2;
/** Of tables that are kept: each is as large as a cluster, so at least eight of the largest. */
const keptTableBytes = 16 * 1024 ** 2;

/** Where a cluster's content is. `absent`: in the file below, where there is one. */
type Place =
  | { type: "absent" }
  | { type: "zeros" }
  | { type: "plain"; offset: number }
  | { type: "packed"; offset: number; length: number };

const absent: Place = { type: "absent" };
const zeros: Place = { type: "zeros" };

export class Qcow2File {
  readonly sizeBytes: number;
  readonly clusterBytes: number;
  readonly #read: ReadAt;
  readonly #l1: Buffer;
  readonly #tables = new Map<number, Buffer>();

  private constructor(read: ReadAt, clusterBytes: number, sizeBytes: number, l1: Buffer) {
    this.#read = read;
    this.clusterBytes = clusterBytes;
    this.sizeBytes = sizeBytes;
    this.#l1 = l1;
  }

  /** @throws Unsupported for features that are not read here; Unavailable for what is damaged. */
  static async open(file: Pick<FileHandle, "read">): Promise<Qcow2File> {
    const read = reader(file);
    const header = await read(0, 104);
    if (header.length < 72 || header.readUInt32BE(0) !== magic) throw damaged("has no header");
    const version = header.readUInt32BE(4);
    const clusterBits = header.readUInt32BE(20);
    if (clusterBits < 9 || clusterBits > 21) throw damaged("has clusters of an absurd size");
    if (header.readUInt32BE(32) !== 0) throw unsupported("is encrypted");
    if (version === 3 && header.length === 104) checkFeatures(header);
    else if (version !== 2) throw unsupported(`is qcow2 of version ${version}`);
    const clusterBytes = 2 ** clusterBits;
    const sizeBytes = Number(header.readBigUInt64BE(24));
    const l1Bytes = header.readUInt32BE(36) * 8;
    const needed = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8))) * 8;
    if (!Number.isSafeInteger(sizeBytes) || l1Bytes < needed || l1Bytes > maxL1Bytes) {
      throw damaged("has a table of an absurd size");
    }
    const l1 = await exactly(read, Number(header.readBigUInt64BE(40)), needed);
    return new Qcow2File(read, clusterBytes, sizeBytes, l1);
  }

  async has(cluster: number): Promise<boolean> {
    return (await this.#placeOf(cluster)) !== absent;
  }

  /** A whole cluster, or undefined where the file below counts. */
  async cluster(index: number): Promise<Buffer | undefined> {
    const place = await this.#placeOf(index);
    switch (place.type) {
      case "absent":
        return undefined;
      case "zeros":
        return Buffer.alloc(this.clusterBytes);
      case "plain": {
        // The last cluster of a file may end with it.
        const bytes = await this.#read(place.offset, this.clusterBytes);
        return bytes.length === this.clusterBytes
          ? bytes
          : Buffer.concat([bytes, Buffer.alloc(this.clusterBytes - bytes.length)]);
      }
      case "packed":
        return unpack(await this.#read(place.offset, place.length), this.clusterBytes);
    }
  }

  async #placeOf(cluster: number): Promise<Place> {
    const perTable = this.clusterBytes / 8;
    const at = Math.floor(cluster / perTable) * 8;
    if (at + 8 > this.#l1.length) return absent;
    const table = offsetAt(this.#l1, at);
    if (table === 0) return absent;
    const entries = await this.#table(table);
    const entry = (cluster % perTable) * 8;
    if (entries.readUInt32BE(entry) & 0x40000000) return this.#packed(entries.readBigUInt64BE(entry));
    if (entries.readUInt32BE(entry + 4) & 1) return zeros;
    const offset = offsetAt(entries, entry);
    return offset === 0 ? absent : { type: "plain", offset };
  }

  #packed(entry: bigint): Place {
    const bits = BigInt(62 - (Math.log2(this.clusterBytes) - 8));
    const offset = Number(entry & ((1n << bits) - 1n));
    const sectors = Number((entry & ((1n << 62n) - 1n)) >> bits) + 1;
    return {
      type: "packed",
      offset,
      length: Math.min(sectors * 512 - (offset % 512), 2 * this.clusterBytes),
    };
  }

  async #table(offset: number): Promise<Buffer> {
    const known = this.#tables.get(offset);
    if (known) return known;
    const table = await exactly(this.#read, offset, this.clusterBytes);
    const [oldest] = this.#tables.keys();
    if ((this.#tables.size + 1) * this.clusterBytes > keptTableBytes && oldest !== undefined)
      this.#tables.delete(oldest);
    this.#tables.set(offset, table);
    return table;
  }
}

function checkFeatures(header: Buffer): void {
  const features = header.readBigUInt64BE(72);
  const unknown = features & ~(incompatible.dirty | incompatible.compression);
  if (unknown !== 0n) throw unsupported("uses features that are not read");
  if (features & incompatible.compression) throw unsupported("is compressed in another way than by deflate");
}

/** Bits 9 to 55. */
function offsetAt(table: Buffer, at: number): number {
  return (table.readUInt32BE(at) & 0x00ffffff) * 2 ** 32 + ((table.readUInt32BE(at + 4) & ~0x1ff) >>> 0);
}

const inflate = promisify(inflateRaw);

async function unpack(packed: Buffer, clusterBytes: number): Promise<Buffer> {
  // What follows the stream in its last sector belongs to others: it is cut off in the middle of nothing.
  const bytes = await inflate(packed, { maxOutputLength: clusterBytes }).catch(() => undefined);
  if (bytes?.length !== clusterBytes) throw damaged("has a damaged compressed cluster");
  return bytes;
}

async function exactly(read: ReadAt, offset: number, length: number): Promise<Buffer> {
  if (!Number.isSafeInteger(offset)) throw damaged("refers to a place outside itself");
  const bytes = await read(offset, length);
  if (bytes.length !== length) throw damaged("is cut off");
  return bytes;
}

function damaged(what: string): StrataError {
  return new StrataError("Unavailable", `the root disk ${what}; check it with qemu-img check`);
}

function unsupported(what: string): StrataError {
  return new StrataError("Unsupported", `the root disk ${what}, which is not read here`);
}
