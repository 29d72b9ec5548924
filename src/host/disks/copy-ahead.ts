/**
 * Files of mounted file systems, copied while they are written to, so that their writers need to be kept still only for what
 * changed meanwhile. Passes are made until little is left; the last one is the caller's to ask for, with nobody writing.
 *
 * Nobody has the disks' locks meanwhile: writers may be held for lack of space, or a disk grow, leave, or be put back. What is
 * not as it was is not brought up to date, and the caller copies it in full.
 */
import { constants } from "node:fs";
import { copyFile as cloneFile, type FileHandle, open, rm, stat } from "node:fs/promises";
import { run } from "../run.ts";
import { type BlockRun, blockBytes, type WatchedBlocks, watchBlocks } from "./changed-blocks.ts";
import { copyFile } from "./copy-file.ts";
import { attachmentOf, deviceNumber, loopOf } from "./loop-devices.ts";

/** Less is copied in the time that watching would take. */
const leastBytes = 64 * 1024 ** 2;
/** Left for the last pass: a fraction of a second. */
const enoughBytes = 16 * 1024 ** 2;
/** A writer that is as fast as copying is not caught up with. */
const mostPasses = 4;
const pieceBytes = 1024 ** 2;
const syncMs = 10 * 60_000;

export interface FileCopy {
  from: string;
  to: string;
}

interface Ahead extends FileCopy {
  device: string;
  /** Of the file to the device: writers may have had the file in another way meanwhile, which nobody watched. */
  attachment: string | undefined;
  inode: number;
  sizeBytes: number;
}

export class CopiedAhead {
  readonly #watched: WatchedBlocks | undefined;
  readonly #copies: readonly Ahead[];

  constructor(watched?: WatchedBlocks, copies: readonly Ahead[] = []) {
    this.#watched = watched;
    this.#copies = copies;
  }

  /**
   * With nobody writing any more: completes what was copied. Returns what of `copies` is still to be copied in full. Once.
   */
  async complete(copies: readonly FileCopy[], signal: AbortSignal): Promise<readonly FileCopy[]> {
    const changed = await this.#watched?.changed();
    if (!changed) return copies;
    const left: FileCopy[] = [];
    for (const copy of copies) {
      const ahead = this.#copies.find(({ from, to }) => from === copy.from && to === copy.to);
      if (ahead && (await isAsBefore(ahead, signal))) {
        await copyRuns(ahead, changed.get(ahead.device) ?? [], signal);
      } else left.push(copy);
    }
    return left;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watched?.close();
  }
}

/**
 * Files that are not mounted, that share blocks or that are small are left to the caller. `trees`: where their file systems
 * are mounted that may be written to; what these have taken on is written out once more, so that freezing them is short.
 */
export async function copyAhead(
  copies: readonly FileCopy[],
  trees: readonly string[],
  signal: AbortSignal,
): Promise<CopiedAhead> {
  const ahead: Ahead[] = [];
  for (const copy of copies) {
    const { ino: inode, size: sizeBytes, blocks } = await stat(copy.from);
    if (blocks * 512 < leastBytes || (await sharesBlocks(copy))) continue;
    const loop = await loopOf(copy.from, signal);
    if (loop === undefined) continue;
    const [device, attachment] = await Promise.all([deviceNumber(loop), attachmentOf(loop)]);
    ahead.push({ ...copy, device, attachment, inode, sizeBytes });
  }
  const watched = ahead.length > 0 ? await watchBlocks(ahead.map(({ device }) => device)) : undefined;
  if (!watched) return new CopiedAhead();
  try {
    for (const { from, to } of ahead) await copyFile(from, to, signal);
    for (let pass = 0; pass < mostPasses; pass++) {
      for (const tree of trees) await run("sync", ["--file-system", tree], { signal, timeoutMs: syncMs });
      const changed = await watched.changed();
      if (!changed) break;
      for (const copy of ahead) await copyRuns(copy, changed.get(copy.device) ?? [], signal);
      if (bytesOf([...changed.values()].flat()) <= enoughBytes) break;
    }
    return new CopiedAhead(watched, ahead);
  } catch (error) {
    await watched.close();
    for (const { to } of ahead) await rm(to, { force: true });
    throw error;
  }
}

/** Seen by doing it; what comes of it goes away. */
export async function sharesBlocks({ from, to }: FileCopy): Promise<boolean> {
  try {
    await cloneFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  } finally {
    await rm(to, { force: true });
  }
}

/** Written to by nothing but the device that was watched. */
async function isAsBefore(before: Ahead, signal: AbortSignal): Promise<boolean> {
  const { ino, size } = await stat(before.from);
  if (ino !== before.inode || size !== before.sizeBytes) return false;
  const loop = await loopOf(before.from, signal);
  if (loop === undefined || (await deviceNumber(loop)) !== before.device) return false;
  return (await attachmentOf(loop)) === before.attachment;
}

async function copyRuns(
  { from, to, sizeBytes }: Ahead,
  runs: readonly BlockRun[],
  signal: AbortSignal,
): Promise<void> {
  if (runs.length === 0) return;
  await using source = await open(from, "r");
  await using target = await open(to, "r+");
  const [piece, there] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  for (const { first, count } of runs) {
    const end = Math.min(sizeBytes, (first + count) * blockBytes);
    for (let at = first * blockBytes; at < end; ) {
      signal.throwIfAborted();
      const length = await readAt(source, piece, at, Math.min(pieceBytes, end - at));
      if (length === 0) break;
      // What was discarded, and was a hole in the copy already, stays one.
      const isThere = (await readAt(target, there, at, length)) === length;
      const same = isThere && piece.compare(there, 0, length, 0, length) === 0;
      if (!same) await writeAt(target, piece, at, length);
      at += length;
    }
  }
}

async function readAt(file: FileHandle, piece: Buffer, at: number, length: number): Promise<number> {
  return (await file.read(piece, 0, length, at)).bytesRead;
}

async function writeAt(file: FileHandle, piece: Buffer, at: number, length: number): Promise<void> {
  for (let done = 0; done < length; ) {
    done += (await file.write(piece, done, length - done, at + done)).bytesWritten;
  }
}

function bytesOf(runs: readonly BlockRun[]): number {
  return runs.reduce((sum, { count }) => sum + count * blockBytes, 0);
}
