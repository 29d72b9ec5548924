/**
 * What builds printed: `build-logs/NAME`, and `NAME.old` before it. A log that has grown to `halfBytes` takes the place of the
 * old one, so of a long one the last lines stay.
 */
import { createReadStream, createWriteStream, type WriteStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const halfBytes = 1024 ** 2;
const keptLogs = 200;
const namePattern = /^[a-z0-9-]{1,64}$/;

export class BuildLogs {
  readonly #directory: string;
  readonly #halfBytes: number;

  constructor(directory: string, limit = halfBytes) {
    this.#directory = directory;
    this.#halfBytes = limit;
  }

  /** Begins the log of that name anew. Of all logs, the newest stay. */
  async open(name: string): Promise<BuildLog> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await this.remove(name);
    await this.#removeOld();
    return new BuildLog(this.#pathOf(name), this.#halfBytes);
  }

  /** The whole of it, or undefined when there is none; what is written meanwhile need not be in it. */
  async read(name: string): Promise<AsyncIterable<Uint8Array> | undefined> {
    const path = this.#pathOf(name);
    const parts: string[] = [];
    for (const part of [`${path}.old`, path]) if (await isThere(part)) parts.push(part);
    if (parts.length === 0) return undefined;
    return (async function* () {
      for (const part of parts) yield* createReadStream(part) as AsyncIterable<Uint8Array>;
    })();
  }

  /** Absent is success. */
  async remove(name: string): Promise<void> {
    const path = this.#pathOf(name);
    for (const part of [path, `${path}.old`]) await rm(part, { force: true });
  }

  #pathOf(name: string): string {
    if (!namePattern.test(name)) throw new TypeError("a build's log has the name of an image's uid");
    return join(this.#directory, name);
  }

  async #removeOld(): Promise<void> {
    const names = (await readdir(this.#directory)).filter((name) => namePattern.test(name));
    const found: { name: string; at: number }[] = [];
    for (const name of names) {
      const seen = await stat(join(this.#directory, name)).catch(() => undefined); // another daemon may remove it
      if (seen) found.push({ name, at: seen.mtimeMs });
    }
    found.sort((a, b) => b.at - a.at);
    for (const { name } of found.slice(keptLogs - 1)) await this.remove(name);
  }
}

export class BuildLog implements AsyncDisposable {
  readonly #path: string;
  readonly #halfBytes: number;
  #stream: WriteStream;
  #written = 0;
  #turn: Promise<void> = Promise.resolve();
  /** What is not handed to the stream yet. */
  #lines: string[] = [];

  constructor(path: string, limit: number) {
    this.#path = path;
    this.#halfBytes = limit;
    this.#stream = openLog(path);
  }

  /** In order; never fails: a build does not end because its log cannot be kept. What comes at once is written at once. */
  add(line: string): void {
    this.#lines.push(`${line.replace(/[^\P{Cc}\t]/gu, " ")}\n`);
    if (this.#lines.length === 1) this.#turn = this.#turn.then(() => this.#write());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    await ended(this.#stream);
  }

  async #write(): Promise<void> {
    const lines = this.#lines;
    this.#lines = [];
    let text = "";
    for (const line of lines) {
      const bytes = Buffer.byteLength(line);
      if (this.#written > 0 && this.#written + bytes > this.#halfBytes) {
        this.#stream.write(text);
        text = "";
        await this.#turnOver();
      }
      this.#written += bytes;
      text += line;
    }
    this.#stream.write(text);
  }

  async #turnOver(): Promise<void> {
    await ended(this.#stream);
    await rename(this.#path, `${this.#path}.old`).catch(() => {});
    this.#stream = openLog(this.#path);
    this.#written = 0;
  }
}

function openLog(path: string): WriteStream {
  const stream = createWriteStream(path, { mode: 0o600 });
  stream.on("error", () => {});
  return stream;
}

function ended(stream: WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.once("close", resolve);
    stream.end();
    if (stream.closed) resolve();
  });
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
