/**
 * Reads ext2, ext3 and ext4 file systems of disk images from strangers, without the kernel and without privileges:
 * every number is checked before it is used, so a crafted image can only give an error or wrong content. Layout:
 * https://docs.kernel.org/filesystems/ext4/. Read-only; no journal replay, so a file system that was not cleanly
 * unmounted is refused, unless the caller sees to its journal (host/drift/open-unclean.ts).
 */
import { StrataError } from "../../core/errors.ts";
import type { ReadAt } from "./partition-table.ts";

export interface Inode {
  number: number;
  type: "file" | "directory" | "symlink" | "character" | "block" | "fifo" | "socket";
  mode: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  mtimeSeconds: number;
  links: number;
  /** The value of security.capability. */
  capability: Buffer | undefined;
  flags: number;
  /** The 60 bytes that map the content, or are a short symbolic link. */
  map: Buffer;
}

interface Layout {
  blockBytes: number;
  blockCount: number;
  inodeCount: number;
  inodesPerGroup: number;
  inodeBytes: number;
  descriptorBytes: number;
  firstDataBlock: number;
  wide: boolean;
  /** Inode of the journal that has to be read first, if any. */
  journal: number | undefined;
}

interface Extent {
  /** First block in the file, first block on disk, and how many; 0 on disk stands for zeros. */
  logical: number;
  physical: number;
  count: number;
}

const rootInode = 2;
const extentsFlag = 0x80000;
const inlineDataFlag = 0x10000000;
const encryptedFlag = 0x800;
const maxDirectoryBytes = 256 * 1024 ** 2;
const maxTargetBytes = 4095;
const chunkBlocks = 256;

const incompatible = {
  fileType: 0x2,
  recover: 0x4,
  extents: 0x40,
  wide: 0x80,
  multiMount: 0x100,
  flexGroups: 0x200,
  checksumSeed: 0x2000,
  largeDirectories: 0x4000,
} as const;
const supported = Object.values(incompatible).reduce((all, flag) => all | flag, 0);

const typesByMode: Record<number, Inode["type"]> = {
  1: "fifo",
  2: "character",
  4: "directory",
  6: "block",
  8: "file",
  10: "symlink",
  12: "socket",
};

/** True when there is a superblock of the ext family; says nothing about the rest. */
export async function hasExt4(read: ReadAt): Promise<boolean> {
  const block = await read(1024, 1024);
  return block.length === 1024 && block.readUInt16LE(56) === 0xef53;
}

export class Ext4FileSystem {
  readonly #read: ReadAt;
  readonly #layout: Layout;
  readonly #inodeTables = new Map<number, number>();

  private constructor(read: ReadAt, layout: Layout) {
    this.#read = read;
    this.#layout = layout;
  }

  /**
   * `unclean`: also what was not cleanly unmounted; then `journal` says what is missing.
   * @throws Unsupported for features that are not read here; Invalid for what is damaged.
   */
  static async open(read: ReadAt, { unclean = false } = {}): Promise<Ext4FileSystem> {
    const block = await read(1024, 1024);
    if (block.length < 1024 || block.readUInt16LE(56) !== 0xef53) throw damaged("has no superblock");
    const layout = readLayout(block);
    if (layout.journal !== undefined && !unclean) throw notUnmounted();
    return new Ext4FileSystem(read, layout);
  }

  /** Inode of a journal that holds what is not in its place yet. */
  get journal(): number | undefined {
    return this.#layout.journal;
  }

  get blockBytes(): number {
    return this.#layout.blockBytes;
  }

  get sizeBytes(): number {
    return this.#layout.blockBytes * this.#layout.blockCount;
  }

  root(): Promise<Inode> {
    return this.inode(rootInode);
  }

  async inode(number: number): Promise<Inode> {
    const raw = await this.#exactly(await this.#offsetOf(number), this.#layout.inodeBytes);
    return this.#parseInode(number, raw);
  }

  async #offsetOf(number: number): Promise<number> {
    const { inodeCount, inodesPerGroup, inodeBytes, blockBytes } = this.#layout;
    if (number < 1 || number > inodeCount)
      throw damaged(`refers to the inode ${number}, which it does not have`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    const table = await this.#inodeTable(group);
    return table * blockBytes + ((number - 1) % inodesPerGroup) * inodeBytes;
  }

  /** Where a file's content lies, in bytes from the beginning; holes are left out. */
  async *ranges(inode: Inode): AsyncGenerator<{ offset: number; length: number }, void, void> {
    const { blockBytes } = this.#layout;
    for await (const { physical, count } of this.#extents(inode, Math.ceil(inode.sizeBytes / blockBytes))) {
      if (physical !== 0) yield { offset: physical * blockBytes, length: count * blockBytes };
    }
  }

  /** Names and inodes of a directory's entries, without "." and "..". */
  async *entries(directory: Inode): AsyncGenerator<{ name: string; inode: number }, void, void> {
    if (directory.sizeBytes > maxDirectoryBytes) throw damaged("has a directory of an absurd size");
    for await (const chunk of this.content(directory)) {
      for (let start = 0; start < chunk.length; start += this.#layout.blockBytes) {
        yield* parseDirectoryBlock(chunk.subarray(start, start + this.#layout.blockBytes));
      }
    }
  }

  /** The inode of a name in a directory. */
  async find(directory: Inode, name: string): Promise<Inode | undefined> {
    for await (const entry of this.entries(directory)) {
      if (entry.name === name) return this.inode(entry.inode);
    }
    return undefined;
  }

  async target(link: Inode): Promise<string> {
    if (link.sizeBytes > maxTargetBytes) throw damaged("has a symbolic link of an absurd length");
    if (link.sizeBytes < 60 && !(link.flags & extentsFlag))
      return link.map.toString("utf8", 0, link.sizeBytes);
    const parts: Buffer[] = [];
    for await (const chunk of this.content(link)) parts.push(chunk);
    return Buffer.concat(parts).toString("utf8");
  }

  /** A file's bytes, holes as zeros, in chunks of whole blocks but for the last. */
  async *content(inode: Inode): AsyncGenerator<Buffer, void, void> {
    if (inode.flags & (inlineDataFlag | encryptedFlag)) {
      throw new StrataError(
        "Unsupported",
        "the image's file system has encrypted or inline files, which are not read",
      );
    }
    const { blockBytes } = this.#layout;
    const blocks = Math.ceil(inode.sizeBytes / blockBytes);
    let next = 0;
    for await (const extent of this.#extents(inode, blocks)) {
      yield* this.#blocks(0, extent.logical - next, next, inode.sizeBytes);
      const count = Math.min(extent.count, blocks - extent.logical);
      yield* this.#blocks(extent.physical, count, extent.logical, inode.sizeBytes);
      next = extent.logical + count;
    }
    yield* this.#blocks(0, blocks - next, next, inode.sizeBytes);
  }

  async *#blocks(
    physical: number,
    count: number,
    logical: number,
    sizeBytes: number,
  ): AsyncGenerator<Buffer> {
    const { blockBytes } = this.#layout;
    for (let done = 0; done < count; done += chunkBlocks) {
      const length = Math.min(
        Math.min(chunkBlocks, count - done) * blockBytes,
        sizeBytes - (logical + done) * blockBytes,
      );
      if (length <= 0) return;
      yield physical === 0
        ? Buffer.alloc(length)
        : await this.#exactly((physical + done) * blockBytes, length);
    }
  }

  #extents(inode: Inode, blocks: number): AsyncGenerator<Extent, void, void> {
    return inode.flags & extentsFlag
      ? this.#extentTree(inode.map, { blocks, next: 0 })
      : this.#blockMap(inode.map, blocks);
  }

  /**
   * Leaves come in the order of the file and each node has an entry, so a crafted tree cannot be walked for longer
   * than the file has blocks.
   */
  async *#extentTree(
    node: Buffer,
    progress: { blocks: number; next: number },
    expectedDepth?: number,
  ): AsyncGenerator<Extent, void, void> {
    const depth = node.readUInt16LE(6);
    const count = node.readUInt16LE(2);
    const root = expectedDepth === undefined;
    const right = node.readUInt16LE(0) === 0xf30a && depth <= 5 && 12 + count * 12 <= node.length;
    if (!right || !(root || (depth === expectedDepth && count > 0)))
      throw damaged("has a damaged extent tree");
    for (let at = 12; at < 12 + count * 12 && progress.next < progress.blocks; at += 12) {
      if (depth > 0) {
        const child = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32;
        yield* this.#extentTree(await this.#block(child), progress, depth - 1);
        continue;
      }
      const logical = node.readUInt32LE(at);
      const length = node.readUInt16LE(at + 4);
      const unwritten = length > 32768;
      const physical = node.readUInt32LE(at + 8) + node.readUInt16LE(at + 6) * 2 ** 32;
      const extent = {
        logical,
        physical: unwritten ? 0 : physical,
        count: unwritten ? length - 32768 : length,
      };
      if (extent.count === 0 || logical < progress.next) throw damaged("has a damaged extent tree");
      progress.next = logical + extent.count;
      if (logical >= progress.blocks) return; // preallocated past the end
      this.#check(physical);
      this.#check(physical + extent.count - 1);
      yield extent;
    }
  }

  /** Twelve direct blocks, then one tree each of depth 1, 2 and 3. */
  async *#blockMap(map: Buffer, blocks: number): AsyncGenerator<Extent> {
    const perBlock = this.#layout.blockBytes / 4;
    let logical = 0;
    const visit = async function* (
      this: Ext4FileSystem,
      block: number,
      depth: number,
    ): AsyncGenerator<Extent> {
      const covers = perBlock ** depth;
      if (logical >= blocks) return;
      if (block === 0) {
        logical += covers;
        return;
      }
      this.#check(block);
      if (depth === 0) {
        yield { logical: logical++, physical: block, count: 1 };
        return;
      }
      const table = await this.#block(block);
      for (let at = 0; at < table.length && logical < blocks; at += 4) {
        yield* visit.call(this, table.readUInt32LE(at), depth - 1);
      }
    };
    for (let index = 0; index < 15; index++)
      yield* visit.call(this, map.readUInt32LE(index * 4), Math.max(0, index - 11));
  }

  async #inodeTable(group: number): Promise<number> {
    const known = this.#inodeTables.get(group);
    if (known !== undefined) return known;
    const { firstDataBlock, blockBytes, descriptorBytes, wide } = this.#layout;
    const raw = await this.#exactly(
      (firstDataBlock + 1) * blockBytes + group * descriptorBytes,
      descriptorBytes,
    );
    const table = raw.readUInt32LE(8) + (wide ? raw.readUInt32LE(40) * 2 ** 32 : 0);
    this.#check(table);
    this.#inodeTables.set(group, table);
    return table;
  }

  async #parseInode(number: number, raw: Buffer): Promise<Inode> {
    const mode = raw.readUInt16LE(0);
    const type = typesByMode[mode >> 12];
    if (type === undefined) throw damaged(`has the inode ${number} of no known type`);
    const sizeBytes = raw.readUInt32LE(4) + raw.readUInt32LE(108) * 2 ** 32;
    if (!Number.isSafeInteger(sizeBytes)) throw damaged(`has a file of an absurd size`);
    return {
      number,
      type,
      mode: mode & 0o7777,
      uid: raw.readUInt16LE(2) + raw.readUInt16LE(120) * 65536,
      gid: raw.readUInt16LE(24) + raw.readUInt16LE(122) * 65536,
      sizeBytes,
      mtimeSeconds: raw.readUInt32LE(16),
      links: raw.readUInt16LE(26),
      capability: await this.#capability(raw),
      flags: raw.readUInt32LE(32),
      // A copy: a part would keep all that was read with it.
      map: Buffer.from(raw.subarray(40, 100)),
    };
  }

  async #capability(raw: Buffer): Promise<Buffer | undefined> {
    const extra = raw.length > 128 ? 128 + raw.readUInt16LE(128) : raw.length;
    if (extra + 4 <= raw.length && raw.readUInt32LE(extra) === 0xea020000) {
      const entries = raw.subarray(extra + 4);
      const found = findCapability(entries, entries);
      if (found) return found;
    }
    const block = raw.readUInt32LE(104) + raw.readUInt16LE(118) * 2 ** 32;
    if (block === 0) return undefined;
    const attributes = await this.#block(block);
    if (attributes.readUInt32LE(0) !== 0xea020000) throw damaged("has damaged extended attributes");
    return findCapability(attributes.subarray(32), attributes);
  }

  #block(number: number): Promise<Buffer> {
    this.#check(number);
    return this.#exactly(number * this.#layout.blockBytes, this.#layout.blockBytes);
  }

  #check(block: number): void {
    if (block < 1 || block >= this.#layout.blockCount)
      throw damaged(`refers to the block ${block}, outside itself`);
  }

  async #exactly(offset: number, length: number): Promise<Buffer> {
    const bytes = await this.#read(offset, length);
    if (bytes.length !== length) throw damaged("is cut off");
    return bytes;
  }
}

function readLayout(block: Buffer): Layout {
  const features = block.readUInt32LE(96);
  const unknown = features & ~supported;
  if (unknown) {
    const bits = `0x${(unknown >>> 0).toString(16)}`;
    throw new StrataError(
      "Unsupported",
      `the image's file system uses ext4 features that are not read (${bits})`,
    );
  }
  const wide = (features & incompatible.wide) !== 0;
  const logBlock = block.readUInt32LE(24);
  const dynamic = block.readUInt32LE(76) > 0;
  const layout: Layout = {
    blockBytes: 1024 << Math.min(logBlock, 8),
    blockCount: block.readUInt32LE(4) + (wide ? block.readUInt32LE(336) * 2 ** 32 : 0),
    inodeCount: block.readUInt32LE(0),
    inodesPerGroup: block.readUInt32LE(40),
    inodeBytes: dynamic ? block.readUInt16LE(88) : 128,
    descriptorBytes: wide ? block.readUInt16LE(254) : 32,
    firstDataBlock: block.readUInt32LE(20),
    wide,
    journal: features & incompatible.recover ? block.readUInt32LE(224) : undefined,
  };
  const { inodeBytes, descriptorBytes, blockBytes } = layout;
  const sane =
    logBlock <= 6 &&
    layout.blockCount > 0 &&
    layout.inodesPerGroup > 0 &&
    layout.inodesPerGroup <= blockBytes * 8 &&
    inodeBytes >= 128 &&
    inodeBytes <= blockBytes &&
    (inodeBytes & (inodeBytes - 1)) === 0 &&
    descriptorBytes >= (wide ? 64 : 32) &&
    descriptorBytes <= 1024 &&
    layout.firstDataBlock <= 1;
  if (!sane) throw damaged("has a damaged superblock");
  return layout;
}

function notUnmounted(): StrataError {
  return new StrataError(
    "Unsupported",
    "the image's file system was not cleanly unmounted; shut the machine down before taking its disk as an image",
  );
}

function* parseDirectoryBlock(block: Buffer): Generator<{ name: string; inode: number }> {
  for (let at = 0; at + 8 <= block.length; ) {
    const inode = block.readUInt32LE(at);
    const length = block.readUInt16LE(at + 4);
    const nameLength = block[at + 6] ?? 0;
    if (length < 8 || length % 4 !== 0 || at + length > block.length || 8 + nameLength > length) {
      throw damaged("has a damaged directory");
    }
    const name = block.toString("utf8", at + 8, at + 8 + nameLength);
    if (inode !== 0 && name !== "." && name !== "..") {
      if (name === "" || name.includes("/") || name.includes("\0"))
        throw damaged("has a name that no file can have");
      yield { name, inode };
    }
    at += length;
  }
}

/** Value offsets count from `values`; name index 6 is "security.". */
function findCapability(entries: Buffer, values: Buffer): Buffer | undefined {
  for (let at = 0; at + 16 <= entries.length && entries.readUInt32LE(at) !== 0; ) {
    const nameLength = entries[at] ?? 0;
    const name = entries.toString("latin1", at + 16, at + 16 + nameLength);
    if (entries[at + 1] === 6 && name === "capability") {
      const start = entries.readUInt16LE(at + 2);
      const length = entries.readUInt32LE(at + 8);
      if (entries.readUInt32LE(at + 4) !== 0 || start + length > values.length) {
        throw damaged("has damaged extended attributes");
      }
      return Buffer.from(values.subarray(start, start + length));
    }
    at += (16 + nameLength + 3) & ~3;
  }
  return undefined;
}

function damaged(what: string): StrataError {
  return new StrataError("Invalid", `the image's file system ${what}; check the image`);
}
