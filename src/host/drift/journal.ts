/**
 * What the journal of an ext3 or ext4 file system still holds: blocks that were committed and are not in their places yet,
 * as the kernel would write them there at the next mount. Nothing is written; the blocks are read from here instead.
 * Every number is checked, so a crafted journal can only give an error or wrong content.
 * Format: https://docs.kernel.org/filesystems/ext4/journal.html
 */
import { StrataError } from "../../core/errors.ts";

const magic = 0xc03b3998;
const types = { descriptor: 1, commit: 2, superblock1: 3, superblock2: 4, revoke: 5 } as const;
const features = { revoke: 1, wide: 2, asyncCommit: 4, checksum2: 8, checksum3: 16 } as const;
const flags = { escaped: 1, sameUuid: 2, last: 8 } as const;
const uuidBytes = 16;

interface Journal {
  blockBytes: number;
  /** Blocks from `first` on are used in turns. */
  first: number;
  blocks: number;
  sequence: number;
  start: number;
  features: number;
}

interface Transaction {
  sequence: number;
  /** Block on disk to block of the journal. */
  writes: { block: number; at: number; escaped: boolean }[];
  revoked: number[];
}

/** The blocks by their number on disk. `bytes`: the whole journal. @throws Unsupported; Unavailable when damaged. */
export function replayJournal(bytes: Buffer, blockBytes: number): Map<number, Buffer> {
  const journal = readSuperblock(bytes, blockBytes);
  if (!journal || journal.start === 0) return new Map();
  const transactions = readTransactions(bytes, journal);
  const revokedBy = new Map<number, number>();
  for (const { sequence, revoked } of transactions)
    for (const block of revoked) revokedBy.set(block, sequence);
  const blocks = new Map<number, Buffer>();
  for (const { sequence, writes } of transactions) {
    for (const { block, at, escaped } of writes) {
      if ((revokedBy.get(block) ?? -1) >= sequence) continue;
      const content = Buffer.from(blockAt(bytes, at, blockBytes));
      // A block that begins like one of the journal's own is kept with its beginning wiped.
      if (escaped) content.writeUInt32BE(magic, 0);
      blocks.set(block, content);
    }
  }
  return blocks;
}

function readSuperblock(bytes: Buffer, blockBytes: number): Journal | undefined {
  if (bytes.length < 1024 || bytes.readUInt32BE(0) !== magic) throw damaged("has no superblock");
  const type = bytes.readUInt32BE(4);
  if (type !== types.superblock1 && type !== types.superblock2) throw damaged("has no superblock");
  const found = {
    blockBytes: bytes.readUInt32BE(12),
    blocks: bytes.readUInt32BE(16),
    first: bytes.readUInt32BE(20),
    sequence: bytes.readUInt32BE(24),
    start: bytes.readUInt32BE(28),
    features: type === types.superblock2 ? bytes.readUInt32BE(40) : 0,
  };
  const known = Object.values(features).reduce((all, flag) => all | flag, 0);
  if (found.features & ~known) throw unsupported(found.features);
  if (found.features & features.asyncCommit) throw unsupported(found.features);
  const sane =
    found.blockBytes === blockBytes &&
    found.first >= 1 &&
    found.first < found.blocks &&
    found.blocks * blockBytes <= bytes.length &&
    found.start < found.blocks;
  if (!sane) throw damaged("has a damaged superblock");
  return found;
}

/** Those that are complete, in their order; each block of the journal is visited once at most. */
function readTransactions(bytes: Buffer, journal: Journal): Transaction[] {
  const done: Transaction[] = [];
  let at = journal.start;
  let visited = 0;
  const next = () => {
    visited++;
    at = at + 1 < journal.blocks ? at + 1 : journal.first;
  };
  let current: Transaction = { sequence: journal.sequence, writes: [], revoked: [] };
  while (visited < journal.blocks) {
    const block = blockAt(bytes, at, journal.blockBytes);
    if (block.readUInt32BE(0) !== magic || block.readUInt32BE(8) !== current.sequence) break;
    const type = block.readUInt32BE(4);
    next();
    if (type === types.descriptor) {
      for (const tag of readTags(block, journal)) {
        current.writes.push({ ...tag, at });
        next();
      }
    } else if (type === types.revoke) current.revoked.push(...readRevoked(block, journal));
    else if (type === types.commit) {
      done.push(current);
      current = { sequence: (current.sequence + 1) >>> 0, writes: [], revoked: [] };
    } else break;
  }
  return done;
}

function* readTags(block: Buffer, journal: Journal): Generator<{ block: number; escaped: boolean }> {
  const wide = (journal.features & features.wide) !== 0;
  const third = (journal.features & features.checksum3) !== 0;
  const second = (journal.features & features.checksum2) !== 0;
  const tagBytes = third ? 16 : 8 + (second ? 2 : 0) + (wide ? 4 : 0);
  for (let at = 12; at + tagBytes <= block.length; ) {
    const flag = third ? block.readUInt32BE(at + 4) : block.readUInt16BE(at + 6);
    const high = wide ? block.readUInt32BE(at + 8) : 0;
    yield { block: block.readUInt32BE(at) + high * 2 ** 32, escaped: (flag & flags.escaped) !== 0 };
    if (flag & flags.last) return;
    at += tagBytes + (flag & flags.sameUuid ? 0 : uuidBytes);
  }
}

function readRevoked(block: Buffer, journal: Journal): number[] {
  const end = Math.min(block.readUInt32BE(12), block.length);
  const wide = (journal.features & features.wide) !== 0;
  const revoked: number[] = [];
  for (let at = 16; at + (wide ? 8 : 4) <= end; at += wide ? 8 : 4) {
    revoked.push(
      wide ? block.readUInt32BE(at) * 2 ** 32 + block.readUInt32BE(at + 4) : block.readUInt32BE(at),
    );
  }
  return revoked;
}

function blockAt(bytes: Buffer, index: number, blockBytes: number): Buffer {
  return bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
}

function damaged(what: string): StrataError {
  return new StrataError("Unavailable", `the journal of the root's file system ${what}`);
}

function unsupported(found: number): StrataError {
  return new StrataError(
    "Unsupported",
    `the journal of the root's file system has features that are not read (0x${found.toString(16)}); stop the instance in order and ask again`,
  );
}
