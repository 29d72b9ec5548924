import { StrataError } from "../../core/errors.ts";
import { type DiskSurvey, surveyDisk } from "../images/disk-survey.ts";
import { Ext4FileSystem } from "../images/ext4-file-system.ts";
import type { ReadAt } from "../images/partition-table.ts";
import { type JournalBlock, readJournal, restoreBeginning } from "./journal.ts";

/** mke2fs makes none larger. Only what is not in its place yet is read of it. */
const maxJournalBytes = 1024 ** 3;
/** Of the disk, which the journal lies in. On a map of blocks there is one for each block of the map. */
const maxPieces = 16_384;

export interface Opened {
  fileSystem: Ext4FileSystem;
  /** Is any of it (bytes of the file system's disk) read from the journal instead of its place? */
  isReplayed(offset: number, length: number): boolean;
}

/**
 * A file system that may be in use, or was when its machine was switched off: read as its kernel would find it after the
 * next mount. @throws as Ext4FileSystem.open and readJournal.
 */
export async function openUnclean(read: ReadAt): Promise<Opened> {
  const asItIs = await Ext4FileSystem.open(read, { unclean: true });
  if (asItIs.journal === undefined) return { fileSystem: asItIs, isReplayed: () => false };
  const { blockBytes } = asItIs;
  const { placeOf, sizeBytes } = await findJournal(asItIs, asItIs.journal);
  const readBlock = async (index: number) => {
    const block = await read(placeOf(index), blockBytes);
    if (block.length !== blockBytes) throw damaged("is cut off");
    return block;
  };
  const blocks = await readJournal(readBlock, { blockBytes, sizeBytes });
  const contentOf = async ({ at, escaped }: JournalBlock) => {
    const content = await readBlock(at);
    return escaped ? restoreBeginning(content) : content;
  };
  return {
    fileSystem: await Ext4FileSystem.open(withBlocks(read, blocks, blockBytes, contentOf), { unclean: true }),
    isReplayed(offset, length) {
      if (blocks.size === 0) return false;
      const end = offset + length;
      for (let number = Math.floor(offset / blockBytes); number * blockBytes < end; number++) {
        if (blocks.has(number)) return true;
      }
      return false;
    },
  };
}

/** What lies on a disk whose file systems may be as a running machine leaves them. @throws as surveyDisk. */
export function surveyUnclean(read: ReadAt, sizeBytes: number): Promise<DiskSurvey> {
  return surveyDisk(read, sizeBytes, async (part) => (await openUnclean(part)).fileSystem);
}

/** Where on the disk each of its blocks is, in bytes; all that are within `sizeBytes` have a place. */
async function findJournal(
  fileSystem: Ext4FileSystem,
  number: number,
): Promise<{ placeOf(index: number): number; sizeBytes: number }> {
  const { blockBytes } = fileSystem;
  const inode = await fileSystem.inode(number);
  if (inode.sizeBytes > maxJournalBytes) {
    throw new StrataError(
      "Unsupported",
      `the journal of the root's file system has ${inode.sizeBytes} bytes, and at most ${maxJournalBytes} are read`,
    );
  }
  const pieces: { from: number; offset: number; length: number }[] = [];
  let sizeBytes = 0;
  for await (const { offset, length } of fileSystem.ranges(inode)) {
    const before = pieces.at(-1);
    if (before && before.offset + before.length === offset) before.length += length;
    else pieces.push({ from: sizeBytes, offset, length });
    sizeBytes += length;
    if (pieces.length > maxPieces) throw damaged(`lies in more than ${maxPieces} pieces`);
  }
  // A journal has no holes: without its blocks' places nothing of it means anything.
  if (sizeBytes < inode.sizeBytes) throw damaged("has holes");
  const placeOf = (index: number) => {
    const at = index * blockBytes;
    let [low, high] = [0, pieces.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((pieces[middle]?.from ?? 0) <= at) low = middle;
      else high = middle - 1;
    }
    const piece = pieces[low];
    if (!piece || at >= piece.from + piece.length) throw damaged("refers to a place outside itself");
    return piece.offset + at - piece.from;
  };
  return { placeOf, sizeBytes: inode.sizeBytes };
}

function withBlocks(
  read: ReadAt,
  blocks: ReadonlyMap<number, JournalBlock>,
  blockBytes: number,
  contentOf: (block: JournalBlock) => Promise<Buffer>,
): ReadAt {
  if (blocks.size === 0) return read;
  return async (offset, length) => {
    const bytes = await read(offset, length);
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((offset + bytes.length - 1) / blockBytes);
    let patched: Buffer | undefined;
    for (let number = first; number <= last; number++) {
      const block = blocks.get(number);
      if (!block) continue;
      patched ??= Buffer.from(bytes);
      const content = await contentOf(block);
      // The block's beginning may lie before what was asked for, its end behind.
      const at = number * blockBytes - offset;
      content.copy(patched, Math.max(0, at), Math.max(0, -at), Math.min(blockBytes, bytes.length - at));
    }
    return patched ?? bytes;
  };
}

function damaged(what: string): StrataError {
  return new StrataError("Unavailable", `the journal of the root's file system ${what}`);
}
