/**
 * Directories that a guest may change while they are read. A path in them is never followed: each step opens one name in
 * the directory before it, which stays open, and refuses symbolic links. So nothing a guest does can lead the reader out
 * of its root. (Node has no openat; the kernel's /proc/self/fd/N/NAME is the same.)
 */
import { createHash, hash } from "node:crypto";
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, lstat, open, opendir, readlink } from "node:fs/promises";
import type { RootEntry } from "../../kinds/drift.ts";
import { driftLimits, tooMuch } from "./drift-limits.ts";

const { O_RDONLY, O_NOFOLLOW, O_DIRECTORY, O_NONBLOCK } = constants;
const chunkBytes = 1024 * 1024;
const namesPerRead = 1024;

export class GuestDirectory {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** `path` is the host's own. */
  static async open(path: string): Promise<GuestDirectory> {
    return new GuestDirectory(await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }

  /** The directory of that name; undefined when there is none (any more). */
  async enter(name: Buffer): Promise<GuestDirectory | undefined> {
    const handle = await unlessGone(open(this.#at(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK));
    return handle && new GuestDirectory(handle);
  }

  /** @throws Unsupported for more than driftLimits. */
  async names(): Promise<Buffer[]> {
    const names: Buffer[] = [];
    const directory = await opendir(`/proc/self/fd/${this.#handle.fd}`, {
      // Node takes "buffer" as readdir does; its types do not say so.
      ...{ encoding: "buffer" as BufferEncoding, bufferSize: namesPerRead },
    });
    for await (const { name } of directory as AsyncIterable<{ name: unknown }>) {
      names.push(name as Buffer);
      if (names.length > driftLimits.entries) {
        throw tooMuch(`a directory with more than ${driftLimits.entries} names`);
      }
    }
    return names;
  }

  stat(): Promise<BigIntStats> {
    return this.#handle.stat({ bigint: true });
  }

  look(name: Buffer): Promise<BigIntStats | undefined> {
    return unlessGone(lstat(this.#at(name), { bigint: true }));
  }

  target(name: Buffer): Promise<string | undefined> {
    return unlessGone(readlink(this.#at(name)));
  }

  /** SHA-256 of a plain file, hexadecimal; undefined when it is none (any more). */
  async hashOf(name: Buffer, signal: AbortSignal): Promise<string | undefined> {
    const file = await unlessGone(open(this.#at(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    if (!file) return undefined;
    try {
      const stat = await file.stat();
      if (!stat.isFile()) return undefined;
      const { size } = stat;
      if (size <= chunkBytes) return hash("sha256", await readAll(file, size));
      const sum = createHash("sha256");
      const chunk = Buffer.allocUnsafe(chunkBytes);
      // No more than it had at first: a guest that keeps appending does not keep us.
      for (let at = 0; at < size; ) {
        signal.throwIfAborted();
        const { bytesRead } = await file.read(chunk, 0, Math.min(chunkBytes, size - at), at);
        if (bytesRead === 0) break;
        sum.update(chunk.subarray(0, bytesRead));
        at += bytesRead;
      }
      return sum.digest("hex");
    } finally {
      await file.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }

  #at(name: Buffer): Buffer {
    return Buffer.concat([Buffer.from(`/proc/self/fd/${this.#handle.fd}/`), name]);
  }
}

export function entryTypeOf(stat: BigIntStats): RootEntry["type"] {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "directory";
  if (stat.isSymbolicLink()) return "symlink";
  if (stat.isFIFO()) return "fifo";
  return stat.isSocket() ? "socket" : "device";
}

async function readAll(file: FileHandle, size: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  while (at < size) {
    const { bytesRead } = await file.read(bytes, at, size - at, at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return bytes.subarray(0, at);
}

const goneCodes: ReadonlySet<string | undefined> = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO", "ESTALE"]);

/** What a guest takes away, or makes something else of, while it is being looked at. */
async function unlessGone<T>(looked: Promise<T>): Promise<T | undefined> {
  try {
    return await looked;
  } catch (error) {
    if (goneCodes.has((error as NodeJS.ErrnoException).code)) return undefined;
    throw error;
  }
}
