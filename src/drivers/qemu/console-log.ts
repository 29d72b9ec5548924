/**
 * The log of a guest's serial console. QEMU appends to one file for the guest's whole life, and a guest may print for
 * ever; so the file's beginning is given back to the file system once it is large. That leaves a hole: positions stay
 * what they are, nothing that QEMU writes meanwhile can be lost, and QEMU need not know.
 */
import { watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { run } from "../../host/run.ts";

/** What is kept at least, and what a reader gets at most. */
export const keptBytes = 1024 * 1024;
/** What may be on the disk before the beginning is given back. */
const maxStoredBytes = 4 * 1024 * 1024;
const blockBytes = 4096;
const readBytes = 64 * 1024;
const trimEveryMs = 10_000;
/** Writes of a busy guest are read in batches. */
const settleMs = 50;

/** The last `tailBytes`, then, with `follow`, what comes until the signal aborts. A log that is not there yet is empty. */
export async function* readConsoleLog(
  path: string,
  options: { tailBytes: number; follow: boolean; clock: Clock },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const file = await open(path, "a+", 0o600).catch(ignoreMissing);
  if (file === undefined) return;
  try {
    const { size } = await file.stat();
    let position = Math.max(0, size - Math.min(options.tailBytes, keptBytes));
    while (!signal.aborted) {
      const changed = options.follow ? nextChange(path, signal) : undefined;
      try {
        for await (const chunk of readFrom(file, position)) {
          position += chunk.length;
          yield chunk;
        }
        if (changed === undefined) return;
        await changed.promise;
      } finally {
        changed?.end();
      }
      await options.clock.sleep(settleMs, signal).catch(() => {});
    }
  } finally {
    await file.close();
  }
}

/** Gives the beginning of a large log back to the file system. */
export async function trimConsoleLog(path: string): Promise<void> {
  const found = await stat(path).catch(ignoreMissing);
  if (found === undefined || found.blocks * 512 <= maxStoredBytes) return;
  const length = Math.floor((found.size - keptBytes) / blockBytes) * blockBytes;
  if (length <= 0) return;
  await run("fallocate", ["--punch-hole", "--offset", "0", "--length", String(length), path]);
}

/**
 * Trims a running guest's log as it grows; the returned function ends it. After a write, nothing is looked at for a
 * while: however fast a guest prints, it costs one look in that time, and a silent one costs nothing.
 */
export function keepTrimmed(path: string, clock: Clock, onError: (error: unknown) => void): () => void {
  let ended = false;
  let cancel = () => {};
  const arm = () => {
    const writing = new AbortController();
    const change = nextChange(path, writing.signal);
    cancel = () => writing.abort();
    void change.promise.then(() => {
      change.end();
      if (ended) return;
      cancel = clock.after(trimEveryMs, () => {
        // Armed before the look, so that no write between them goes unnoticed.
        rearm();
        trimConsoleLog(path).catch(onError);
      });
    });
  };
  const rearm = () => {
    if (ended) return;
    try {
      arm();
    } catch {
      ended = true; // the log is gone, and the guest with it
    }
  };
  rearm();
  return () => {
    ended = true;
    cancel();
  };
}

async function* readFrom(file: FileHandle, start: number): AsyncGenerator<Uint8Array> {
  for (let position = start; ; ) {
    const buffer = Buffer.allocUnsafe(readBytes);
    const { bytesRead } = await file.read(buffer, 0, readBytes, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** Resolves at the next write or when the signal aborts. Armed at once, so that no write between is missed. */
function nextChange(path: string, signal: AbortSignal): { promise: Promise<void>; end: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  const watcher = watch(path, { persistent: false }, done);
  watcher.on("error", done);
  signal.addEventListener("abort", done, { once: true });
  return {
    promise,
    end: () => {
      watcher.close();
      signal.removeEventListener("abort", done);
    },
  };
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
  return undefined;
}
