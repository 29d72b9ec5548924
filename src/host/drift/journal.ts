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

/** Where in the journal a block's content is. */
export interface JournalBlock {
  at: number;
  /** It began like one of the journal's own and is kept with its beginning wiped: see restoreBeginning. */
  escaped: boolean;
}

interface Transaction {
  sequence: number;
  writes: Map<number, JournalBlock>;
  revoked: Set<number>;
}

/**
 * What a guest may make the reader read (descriptors, revocations and commits, not the content) and remember. As much as
 * mke2fs makes a journal at most (1 GiB): where each write is synchronous, most of it is commits. Read block by block.
 */
export const journalLimits = { bytes: 1024 ** 3, numbers: 500_000 } as const;

/** A whole block of the journal; never asked for one that lies behind `sizeBytes`. */
type ReadBlock = (index: number) => Promise<Buffer>;

/**
 * The blocks that are not in their places yet, by their number on disk. Their content is not read.
 * @throws Unsupported for what is not read here or is more than `limits`; Unavailable when damaged.
 */
export async function readJournal(
  read: ReadBlock,
  { blockBytes, sizeBytes }: { blockBytes: number; sizeBytes: number },
  limits: { bytes: number; numbers: number } = journalLimits,
): Promise<Map<number, JournalBlock>> {
  if (sizeBytes < blockBytes) throw damaged("has no superblock");
  const journal = readSuperblock(await read(0), { blockBytes, sizeBytes });
  if (journal.start === 0) return new Map();
  const written = new Map<number, JournalBlock & { sequence: number }>();
  const revokedBy = new Map<number, number>();
  const remembered = () => written.size + revokedBy.size;
  for await (const { sequence, writes, revoked } of transactions(read, journal, limits, remembered)) {
    for (const [block, place] of writes) written.set(block, { ...place, sequence });
    for (const block of revoked) revokedBy.set(block, sequence);
  }
  for (const [block, { sequence }] of written) {
    if ((revokedBy.get(block) ?? -1) >= sequence) written.delete(block);
  }
  return written;
}

/** What an escaped block began with. */
export function restoreBeginning(content: Buffer): Buffer {
  const restored = Buffer.from(content);
  restored.writeUInt32BE(magic, 0);
  return restored;
}

function readSuperblock(
  bytes: Buffer,
  { blockBytes, sizeBytes }: { blockBytes: number; sizeBytes: number },
): Journal {
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
    found.blocks * blockBytes <= sizeBytes &&
    found.start < found.blocks;
  if (!sane) throw damaged("has a damaged superblock");
  return found;
}

/** Those that are complete, in their order; each block of the journal is visited once at most. */
async function* transactions(
  read: ReadBlock,
  journal: Journal,
  limits: { bytes: number; numbers: number },
  remembered: () => number,
): AsyncGenerator<Transaction, void, void> {
  const startAnew = (sequence: number): Transaction => ({ sequence, writes: new Map(), revoked: new Set() });
  let at = journal.start;
  let visited = 0;
  let readBytes = 0;
  const next = () => {
    visited++;
    at = at + 1 < journal.blocks ? at + 1 : journal.first;
  };
  let current = startAnew(journal.sequence);
  while (visited < journal.blocks) {
    const block = await read(at);
    if (block.readUInt32BE(0) !== magic || block.readUInt32BE(8) !== current.sequence) break;
    readBytes += journal.blockBytes;
    if (readBytes > limits.bytes) throw tooMuch(`more than ${limits.bytes / 1024 ** 2} MiB of records`);
    const type = block.readUInt32BE(4);
    next();
    if (type === types.descriptor) {
      for (const { block: number, escaped } of readTags(block, journal)) {
        current.writes.set(number, { at, escaped });
        next();
      }
    } else if (type === types.revoke) {
      for (const number of readRevoked(block, journal)) current.revoked.add(number);
    } else if (type === types.commit) {
      yield current;
      current = startAnew((current.sequence + 1) >>> 0);
    } else break;
    if (remembered() + current.writes.size + current.revoked.size > limits.numbers)
      throw tooMuch(`more than ${limits.numbers} blocks`);
  }
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

function* readRevoked(block: Buffer, journal: Journal): Generator<number, void, void> {
  const end = Math.min(block.readUInt32BE(12), block.length);
  const wide = (journal.features & features.wide) !== 0;
  for (let at = 16; at + (wide ? 8 : 4) <= end; at += wide ? 8 : 4) {
    const low = block.readUInt32BE(wide ? at + 4 : at);
    yield wide ? block.readUInt32BE(at) * 2 ** 32 + low : low;
  }
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

function tooMuch(what: string): StrataError {
  return new StrataError(
    "Unsupported",
    `the journal of the root's file system holds ${what}, which is more than is read; stop the instance in order and ask again`,
  );
}
