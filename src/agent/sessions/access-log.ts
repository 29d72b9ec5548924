/** Reads a balancer's access log from its files, and on as it grows. */
import { open, stat } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";

const lookEveryMs = 200;
const chunkBytes = 64 * 1024;

/** The last `tailBytes` (whole lines), the file before the current one included; then what is added, if followed. */
export async function* readAccessLog(
  path: string,
  options: { tailBytes: number; follow: boolean },
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const [older, current] = await Promise.all([fileOf(`${path}.1`), fileOf(path)]);
  const fromCurrent = Math.min(options.tailBytes, current.size);
  const fromOlder = Math.min(options.tailBytes - fromCurrent, older.size);
  if (fromOlder > 0) yield* readPart(`${path}.1`, older.size - fromOlder, older.size);
  let position = current.size - fromCurrent;
  let file = current.inode;
  yield* readPart(path, position, current.size);
  position = current.size;
  while (options.follow && !signal.aborted) {
    await clock.sleep(lookEveryMs, signal).catch(() => {});
    const now = await fileOf(path);
    if (now.inode !== file) {
      // It was moved aside: the rest of it first.
      const before = await fileOf(`${path}.1`);
      if (before.inode === file) yield* readPart(`${path}.1`, position, before.size);
      file = now.inode;
      position = 0;
    }
    if (now.size > position) yield* readPart(path, position, now.size);
    position = now.size;
  }
}

async function fileOf(path: string): Promise<{ inode: number; size: number }> {
  return await stat(path).then(
    ({ ino, size }) => ({ inode: ino, size }),
    () => ({ inode: 0, size: 0 }),
  );
}

async function* readPart(path: string, from: number, to: number): AsyncGenerator<Uint8Array> {
  if (to <= from) return;
  await using file = await open(path, "r");
  for (let position = from; position < to; ) {
    const data = Buffer.alloc(Math.min(chunkBytes, to - position));
    const { bytesRead } = await file.read(data, 0, data.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield data.subarray(0, bytesRead);
  }
}
