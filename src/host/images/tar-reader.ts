/**
 * Reads tar archives (ustar, GNU long names, pax) as they stream by. Strict on purpose, because archives come from
 * strangers: whatever is not plainly right is refused with one message that names the entry, and binary attributes and
 * names come through byte for byte. Formats: POSIX.1-2017 pax, GNU tar manual "Basic Tar Format".
 */
import { StrataError } from "../../core/errors.ts";
import type { TarHeader, TarType } from "../../core/tar-writer.ts";

/** Everything as in the archive, without validation. */
export interface TarEntry extends TarHeader {
  /** The content; to be read to its end before the next entry, the rest is skipped. */
  content: AsyncIterable<Uint8Array>;
}

const block = 512;
const maxExtendedHeaderBytes = 1024 * 1024;
const xattrPrefix = "SCHILY.xattr.";

const types: Record<string, TarType> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** @throws Invalid when the archive is truncated, damaged or of a kind that is not read here (sparse, multi-volume). */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void, void> {
  const input = new ByteSource(source);
  try {
    yield* readEntries(input);
  } finally {
    await input.close();
  }
}

async function* readEntries(input: ByteSource): AsyncGenerator<TarEntry, void, void> {
  const global = new Map<string, Buffer>();
  let extended = new Map<string, Buffer>();
  let previous = "";
  let seen = 0;
  for (;;) {
    const header = await input.take(block);
    if (!header) {
      throw invalid(
        seen === 0 ? "the archive is empty" : `the archive ends after "${previous}" without an end mark`,
      );
    }
    if (header.every((byte) => byte === 0)) return await input.drain(); // so that checksums over the whole are seen
    checkHeader(header, seen, previous);
    const flag = String.fromCharCode(header[156] ?? 0);
    const headerSize = readNumber(header, 124, 12, previous);
    if (flag === "x" || flag === "g" || flag === "L" || flag === "K") {
      const data = await readExtended(input, headerSize, previous);
      if (flag === "L") extended.set("path", cString(data));
      else if (flag === "K") extended.set("linkpath", cString(data));
      else
        for (const [key, value] of parsePax(data, previous))
          (flag === "x" ? extended : global).set(key, value);
      continue;
    }
    const { entry, remaining } = toEntry(header, flag, new Map([...global, ...extended]), previous);
    extended = new Map();
    previous = entry.path;
    seen++;
    let left = remaining;
    entry.content = (async function* () {
      while (left > 0) {
        const chunk = await input.some(left);
        if (!chunk) throw truncated(entry.path);
        left -= chunk.length;
        yield chunk;
      }
    })();
    yield entry;
    for await (const _ of entry.content); // what the caller left
    if (left > 0) await input.skip(left, entry.path);
    await input.skip((block - (remaining % block)) % block, entry.path);
  }
}

function toEntry(
  header: Buffer,
  flag: string,
  extended: ReadonlyMap<string, Buffer>,
  previous: string,
): { entry: TarEntry; remaining: number } {
  const text = (key: string) => {
    const value = extended.get(key);
    return value === undefined ? undefined : decode(value, previous);
  };
  const path = text("path") ?? headerPath(header, previous);
  const number = (key: string, offset: number, length: number) => {
    const value = text(key);
    if (value === undefined) return readNumber(header, offset, length, path);
    if (!/^\d{1,15}(\.\d*)?$/.test(value) && key !== "mtime") {
      throw invalid(`"${show(path)}" has the ${key} "${show(value)}", which is no number`);
    }
    return Math.trunc(Number(value)) || 0;
  };
  for (const key of extended.keys()) {
    if (key.startsWith("GNU.sparse.")) throw sparse(path);
  }
  let type = types[flag];
  if (type === undefined) {
    if (flag === "S") throw sparse(path);
    throw invalid(`"${show(path)}" is of the unknown type "${show(flag)}"`);
  }
  if (type === "file" && path.endsWith("/")) type = "directory";
  const size = number("size", 124, 12);
  const linked = type === "hardlink" || type === "symlink";
  return {
    // Only files carry content; a size on other types is what old writers noted of the link's target.
    remaining: type === "file" ? size : 0,
    entry: {
      path,
      type,
      mode: readNumber(header, 100, 8, path) & 0o7777,
      uid: number("uid", 108, 8),
      gid: number("gid", 116, 8),
      sizeBytes: type === "file" ? size : 0,
      mtimeSeconds: Math.max(0, number("mtime", 136, 12)),
      target: linked ? (text("linkpath") ?? decode(cString(header.subarray(157, 257)), path)) : "",
      attributes: new Map(
        [...extended]
          .filter(([key]) => key.startsWith(xattrPrefix))
          .map(([key, value]) => [key.slice(xattrPrefix.length), value]),
      ),
      content: noContent,
    },
  };
}

const noContent: AsyncIterable<Uint8Array> = (async function* () {})();

function checkHeader(header: Buffer, seen: number, previous: string): void {
  let sum = 8 * 32;
  for (let index = 0; index < block; index++) {
    if (index < 148 || index >= 156) sum += header[index] ?? 0;
  }
  const magic = header.toString("latin1", 257, 262);
  const noted = Number.parseInt(header.toString("latin1", 148, 156).trim(), 8);
  if (noted === sum && (magic === "ustar" || magic === "\0\0\0\0\0")) return;
  throw invalid(
    seen === 0
      ? "this is not a tar archive (nor one packed by gzip, xz or zstd)"
      : `the archive is damaged after "${show(previous)}": the next header's checksum is wrong`,
  );
}

function headerPath(header: Buffer, previous: string): string {
  const name = decode(cString(header.subarray(0, 100)), previous);
  // GNU archives ("ustar  ") use the prefix field for other things.
  const posix = header.toString("latin1", 257, 263) === "ustar\0";
  const prefix = posix ? decode(cString(header.subarray(345, 500)), previous) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

function readNumber(header: Buffer, offset: number, length: number, path: string): number {
  const field = header.subarray(offset, offset + length);
  const first = field[0] ?? 0;
  if (first & 0x80) {
    let value = first & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    if (Number.isSafeInteger(value)) return value;
  } else {
    const digits = field
      .toString("latin1")
      .replace(/[\0 ]+$/, "")
      .trimStart();
    if (/^[0-7]*$/.test(digits)) return digits === "" ? 0 : Number.parseInt(digits, 8);
  }
  throw invalid(`the archive is damaged near "${show(path)}": a header holds no number where one belongs`);
}

async function readExtended(input: ByteSource, sizeBytes: number, previous: string): Promise<Buffer> {
  if (sizeBytes > maxExtendedHeaderBytes) {
    throw invalid(`the extended header after "${show(previous)}" has ${sizeBytes} bytes; 1 MiB is the limit`);
  }
  const padded = await input.take(Math.ceil(sizeBytes / block) * block);
  if (!padded) throw truncated(previous);
  return padded.subarray(0, sizeBytes);
}

/** Records of the form `LENGTH KEY=VALUE\n`, LENGTH counting the whole record. */
function* parsePax(data: Buffer, previous: string): Generator<[string, Buffer]> {
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 ? "" : data.toString("latin1", at, space);
    const end = at + Number(digits);
    const equals = data.indexOf(0x3d, space);
    const whole = /^[1-9]\d{0,6}$/.test(digits) && end <= data.length && data[end - 1] === 0x0a;
    if (!whole || equals < 0 || equals >= end) {
      throw invalid(`the extended header after "${show(previous)}" is damaged`);
    }
    yield [data.toString("latin1", space + 1, equals), data.subarray(equals + 1, end - 1)];
    at = end;
  }
}

function cString(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array, previous: string): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw invalid(
      `an entry after "${show(previous)}" has the name "${show(Buffer.from(bytes).toString("latin1"))}", which is not UTF-8`,
    );
  }
}

/** Names in messages: control characters visible, not longer than people read. */
export function show(text: string): string {
  const escaped = text.replace(/[\p{Cc}\p{Cf}"\\]/gu, (character) => JSON.stringify(character).slice(1, -1));
  return escaped.length > 200 ? `${escaped.slice(0, 200)}…` : escaped;
}

function invalid(message: string): StrataError {
  return new StrataError("Invalid", message);
}

function truncated(path: string): StrataError {
  return invalid(`the archive ends in the middle of "${show(path)}"; it is incomplete`);
}

function sparse(path: string): StrataError {
  return invalid(`"${show(path)}" is stored as a sparse file; make the archive without --sparse`);
}

/** Byte-wise access to chunks of any size. */
class ByteSource {
  #chunks: AsyncIterator<Uint8Array>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** At least 1 and at most `limit` bytes; undefined at the end. */
  async some(limit: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) return undefined;
      this.#rest = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
    }
    const part = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }

  /** Exactly `count` bytes; undefined when the stream ends before. */
  async take(count: number): Promise<Buffer | undefined> {
    const first = count === 0 ? Buffer.alloc(0) : await this.some(count);
    if (!first || first.length === count) return first;
    const parts = [first];
    for (let left = count - first.length; left > 0; ) {
      const part = await this.some(left);
      if (!part) return undefined;
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }

  async skip(count: number, path: string): Promise<void> {
    for (let left = count; left > 0; ) {
      const part = await this.some(left);
      if (!part) throw truncated(path);
      left -= part.length;
    }
  }

  async drain(): Promise<void> {
    while (!(await this.#chunks.next()).done);
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
