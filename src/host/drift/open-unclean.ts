import { StrataError } from "../../core/errors.ts";
import { Ext4FileSystem } from "../images/ext4-file-system.ts";
import type { ReadAt } from "../images/partition-table.ts";
import { replayJournal } from "./journal.ts";

/** mke2fs makes none larger. */
const maxJournalBytes = 1024 ** 3;

/**
 * A file system that may be in use, or was when its machine was switched off: read as its kernel would find it after the
 * next mount. @throws as Ext4FileSystem.open and replayJournal.
 */
export async function openUnclean(read: ReadAt): Promise<Ext4FileSystem> {
  const asItIs = await Ext4FileSystem.open(read, { unclean: true });
  if (asItIs.journal === undefined) return asItIs;
  const inode = await asItIs.inode(asItIs.journal);
  if (inode.sizeBytes > maxJournalBytes) {
    throw new StrataError("Unsupported", "the journal of the root's file system is of an absurd size");
  }
  const parts: Buffer[] = [];
  for await (const chunk of asItIs.content(inode)) parts.push(chunk);
  const { blockBytes } = asItIs;
  const blocks = replayJournal(Buffer.concat(parts), blockBytes);
  return Ext4FileSystem.open(withBlocks(read, blocks, blockBytes), { unclean: true });
}

function withBlocks(read: ReadAt, blocks: ReadonlyMap<number, Buffer>, blockBytes: number): ReadAt {
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
      // The block's beginning may lie before what was asked for, its end behind.
      const at = number * blockBytes - offset;
      block.copy(patched, Math.max(0, at), Math.max(0, -at), Math.min(blockBytes, bytes.length - at));
    }
    return patched ?? bytes;
  };
}
