import type { FileHandle } from "node:fs/promises";

/** Looked for ahead of writing so much. */
const stepBytes = 64 * 1024 ** 2;
const zeros = Buffer.alloc(1024 * 1024);

/**
 * Writes what comes, up to `sizeBytes`, with zeros as holes; returns how much came. `requireRoom` is asked before each step,
 * because only what is no hole takes space, and how much that is nobody knows before. @throws what it throws.
 */
export async function writeSparse(
  file: FileHandle,
  bytes: AsyncIterable<Buffer>,
  sizeBytes: number,
  {
    requireRoom,
    onWritten,
  }: { requireRoom: (bytes: number) => Promise<void>; onWritten: (bytes: number) => void },
): Promise<number> {
  let written = 0;
  let room = 0;
  for await (const chunk of bytes) {
    if (written + chunk.length > sizeBytes) break;
    if (!isZero(chunk)) {
      if (room < chunk.length) {
        const step = Math.max(stepBytes, chunk.length);
        await requireRoom(step);
        room = step;
      }
      room -= chunk.length;
      await writeAll(file, chunk, written);
    }
    written += chunk.length;
    onWritten(written);
  }
  return written;
}

function isZero(chunk: Buffer): boolean {
  if (chunk.length <= zeros.length) return zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
  return chunk.every((byte) => byte === 0);
}

async function writeAll(file: FileHandle, data: Buffer, at: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await file.write(data, done, data.length - done, at + done);
    done += bytesWritten;
  }
}
