import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { encodeBase32 } from "../core/ids.ts";
import type { Random } from "../core/random.ts";
import { formatBytes } from "../core/units.ts";
import type { Image } from "../kinds/image.ts";

/**
 * Files on their way into images. A file is whole or not there: it grows under another name and is renamed when all of
 * it is on the disk. Its name is 160 random bits, so that knowing it is the right to use it. It goes when the image
 * made of it is ready, or after an hour in which no image waits for it.
 */

export const uploadLimits = {
  maxBytes: 64 * 1024 ** 3,
  /** Left free on the disk. */
  reserveBytes: 1024 ** 3,
  /** Received at once. */
  parallel: 4,
  /** Between two pieces of one upload. */
  stalledMs: 60_000,
  /** Kept unused. */
  keptMs: 60 * 60 * 1000,
} as const;

/** How much may arrive before the free space is looked at again. */
const spaceCheckBytes = 64 * 1024 * 1024;

const namePattern = /^upload-[0-9a-hjkmnp-tv-z]{32}$/;
const partialSuffix = ".partial";

export interface Upload {
  upload: string;
  sha256: string;
  sizeBytes: number;
}

export class Uploads {
  readonly #dir: string;
  readonly #clock: Clock;
  readonly #random: Random;
  #receiving = 0;

  private constructor(dir: string, clock: Clock, random: Random) {
    this.#dir = dir;
    this.#clock = clock;
    this.#random = random;
  }

  /** Takes the directory for this process alone; what an earlier one left unfinished is removed. */
  static async open(options: { dir: string; clock: Clock; random: Random }): Promise<Uploads> {
    await mkdir(options.dir, { recursive: true, mode: 0o700 });
    for (const name of await readdir(options.dir)) {
      if (name.endsWith(partialSuffix)) await rm(join(options.dir, name), { force: true });
    }
    return new Uploads(options.dir, options.clock, options.random);
  }

  /**
   * Writes the whole stream to the disk. The stream is not destroyed on failure, so that an answer can still be sent
   * on its connection. `announcedBytes` refuses early what could not be taken.
   * @throws Unavailable without room on the disk or beyond uploadLimits.parallel; Invalid beyond uploadLimits.maxBytes;
   * Timeout when nothing comes for uploadLimits.stalledMs.
   */
  async receive(data: Readable, announcedBytes: number | undefined): Promise<Upload> {
    if (announcedBytes !== undefined) {
      checkSize(announcedBytes);
      await this.#checkSpace(announcedBytes);
    }
    if (this.#receiving >= uploadLimits.parallel) {
      throw new StrataError(
        "Unavailable",
        `${uploadLimits.parallel} uploads are being received already; try again when one is done`,
      );
    }
    this.#receiving++;
    const upload = `upload-${encodeBase32(this.#random.bytes(20))}`;
    const partial = join(this.#dir, `${upload}${partialSuffix}`);
    try {
      const written = await this.#write(data, partial);
      await rename(partial, join(this.#dir, upload));
      return { upload, ...written };
    } catch (error) {
      await rm(partial, { force: true });
      throw toSpaceError(error);
    } finally {
      this.#receiving--;
    }
  }

  async has(upload: string): Promise<boolean> {
    return (await this.#find(upload)) !== undefined;
  }

  /** @throws NotFound */
  async read(upload: string): Promise<{ data: Readable; sizeBytes: number }> {
    const found = await this.#find(upload);
    if (!found) {
      throw new StrataError(
        "NotFound",
        "there is no such upload; uploads go when an image was made of them, or after an hour",
      );
    }
    return { data: createReadStream(found.path), sizeBytes: found.sizeBytes };
  }

  /** Absent is success. */
  async remove(upload: string): Promise<void> {
    const found = await this.#find(upload);
    if (found) await rm(found.path, { force: true });
  }

  /** Removes what no image needs any more. `images` is read only when there are uploads. */
  async prune(images: () => AsyncIterable<Image>): Promise<void> {
    const names = (await readdir(this.#dir)).filter((name) => namePattern.test(name));
    if (names.length === 0) return;
    const users = new Map<string, Image[]>();
    for await (const image of images()) {
      const { source } = image.spec;
      if (!("upload" in source)) continue;
      users.set(source.upload, [...(users.get(source.upload) ?? []), image]);
    }
    for (const name of names) {
      const own = users.get(name) ?? [];
      const waiting = own.some(({ status }) => status.state === "pending" || status.state === "building");
      if (waiting) continue;
      const done = own.some(({ status }) => status.state === "ready");
      if (done || (await this.#isOld(name))) await this.remove(name);
    }
  }

  async #isOld(name: string): Promise<boolean> {
    const info = await stat(join(this.#dir, name)).catch(() => undefined);
    return info !== undefined && this.#clock.now() - info.mtimeMs > uploadLimits.keptMs;
  }

  async #find(upload: string): Promise<{ path: string; sizeBytes: number } | undefined> {
    if (!namePattern.test(upload)) return undefined;
    const path = join(this.#dir, upload);
    const info = await stat(path).catch(() => undefined);
    return info?.isFile() ? { path, sizeBytes: info.size } : undefined;
  }

  async #write(data: Readable, path: string): Promise<{ sha256: string; sizeBytes: number }> {
    const hash = createHash("sha256");
    const file = await open(path, "wx", 0o600);
    try {
      let sizeBytes = 0;
      let unchecked = spaceCheckBytes;
      for await (const chunk of this.#pieces(data)) {
        sizeBytes += chunk.length;
        unchecked += chunk.length;
        checkSize(sizeBytes);
        if (unchecked >= spaceCheckBytes) {
          await this.#checkSpace(chunk.length);
          unchecked = 0;
        }
        hash.update(chunk);
        await file.write(chunk);
      }
      await file.sync();
      return { sha256: hash.digest("hex"), sizeBytes };
    } finally {
      await file.close();
    }
  }

  async *#pieces(data: Readable): AsyncGenerator<Buffer> {
    const iterator = data.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]();
    for (;;) {
      const next = await this.#inTime(iterator.next());
      if (next.done) return;
      yield next.value as Buffer;
    }
  }

  async #inTime<T>(work: Promise<T>): Promise<T> {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const cancel = this.#clock.after(uploadLimits.stalledMs, () => {
      const seconds = uploadLimits.stalledMs / 1000;
      reject(new StrataError("Timeout", `the upload stopped: nothing came for ${seconds} s; send it again`));
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      cancel();
    }
  }

  async #checkSpace(neededBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(this.#dir);
    const room = bavail * bsize - uploadLimits.reserveBytes;
    if (neededBytes <= room) return;
    throw new StrataError(
      "Unavailable",
      `there is no room for this upload: ${formatBytes(Math.max(0, room))} are left for uploads on the daemon's disk; ` +
        "free some space there",
      { detail: `upload directory ${this.#dir}` },
    );
  }
}

function checkSize(bytes: number): void {
  if (bytes <= uploadLimits.maxBytes) return;
  throw new StrataError("Invalid", `the upload is too large: at most ${formatBytes(uploadLimits.maxBytes)}`);
}

function toSpaceError(error: unknown): unknown {
  if (error instanceof StrataError || !(error instanceof Error)) return error;
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new StrataError("Unavailable", "the daemon's disk is full; free some space there", {
      cause: error,
    });
  }
  if (code === "ECONNRESET" || code === "ERR_STREAM_PREMATURE_CLOSE") {
    return new StrataError("Invalid", "the connection broke before the whole upload arrived", {
      cause: error,
    });
  }
  return error;
}
