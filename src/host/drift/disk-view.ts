/**
 * A virtual machine's disk as the machine sees it: its own qcow2 file over those that it is based on. Which files these
 * are, the caller knows; what their headers say of it is not looked at.
 */
import { type FileHandle, open } from "node:fs/promises";
import { assert } from "../../core/errors.ts";
import { reader } from "../images/disk-import.ts";
import type { ReadAt } from "../images/partition-table.ts";
import { Qcow2File } from "./qcow2-file.ts";

export interface DiskFile {
  path: string;
  format: "qcow2" | "raw";
}

const chunkBytes = 64 * 1024;
const cachedChunks = 1024;

interface Layer {
  sizeBytes: number;
  /** What this file has of the disk there, or undefined where the one below counts. */
  read(offset: number, length: number): Promise<Buffer | undefined>;
  has(offset: number): Promise<boolean>;
  /** It has all or nothing of each piece of this size. */
  grainBytes: number;
}

export class DiskView {
  readonly sizeBytes: number;
  readonly #handles: readonly FileHandle[];
  readonly #layers: readonly Layer[];
  readonly #cache = new Map<number, Buffer>();

  private constructor(handles: readonly FileHandle[], layers: readonly Layer[]) {
    this.#handles = handles;
    this.#layers = layers;
    this.sizeBytes = layers[0]?.sizeBytes ?? 0;
  }

  /** The machine's own file first, the image's last. @throws as Qcow2File.open. */
  static async open(files: readonly DiskFile[]): Promise<DiskView> {
    assert(files.length > 0, "a disk has a file");
    const handles: FileHandle[] = [];
    try {
      const layers: Layer[] = [];
      for (const { path, format } of files) {
        const handle = await open(path, "r");
        handles.push(handle);
        layers.push(format === "raw" ? await rawLayer(handle) : qcow2Layer(await Qcow2File.open(handle)));
      }
      return new DiskView(handles, layers);
    } catch (error) {
      for (const handle of handles) await handle.close();
      throw error;
    }
  }

  /** Fewer bytes at the end of the disk. */
  readonly read: ReadAt = async (offset, length) => {
    const end = Math.min(this.sizeBytes, offset + length);
    if (end <= offset) return Buffer.alloc(0);
    const first = Math.floor(offset / chunkBytes);
    const last = Math.floor((end - 1) / chunkBytes);
    const start = offset - first * chunkBytes;
    if (first === last) return (await this.#chunk(first)).subarray(start, start + end - offset);
    const parts: Buffer[] = [];
    for (let index = first; index <= last; index++) parts.push(await this.#chunk(index));
    return Buffer.concat(parts).subarray(start, start + end - offset);
  };

  /** The same of what is not read again: nothing of it is kept. */
  readonly readOnce: ReadAt = async (offset, length) =>
    this.#compose(offset, Math.max(0, Math.min(length, this.sizeBytes - offset)), 0);

  /** Has anything there been written since the disk was made of the image? */
  async isWritten(offset: number, length: number): Promise<boolean> {
    for (const layer of this.#layers.slice(0, -1)) {
      const { grainBytes } = layer;
      for (let at = offset - (offset % grainBytes); at < offset + length; at += grainBytes) {
        if (await layer.has(at)) return true;
      }
    }
    return false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const handle of this.#handles) await handle.close();
  }

  async #chunk(index: number): Promise<Buffer> {
    const known = this.#cache.get(index);
    if (known) return known;
    const chunk = await this.#compose(index * chunkBytes, chunkBytes, 0);
    const [oldest] = this.#cache.keys();
    if (this.#cache.size >= cachedChunks && oldest !== undefined) this.#cache.delete(oldest);
    this.#cache.set(index, chunk);
    return chunk;
  }

  async #compose(offset: number, length: number, from: number): Promise<Buffer> {
    const layer = this.#layers[from];
    if (!layer || offset >= layer.sizeBytes) return Buffer.alloc(length);
    const parts: Buffer[] = [];
    for (let at = offset; at < offset + length; ) {
      const next = Math.min(offset + length, (Math.floor(at / layer.grainBytes) + 1) * layer.grainBytes);
      parts.push((await layer.read(at, next - at)) ?? (await this.#compose(at, next - at, from + 1)));
      at = next;
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  }
}

function qcow2Layer(file: Qcow2File): Layer {
  const { clusterBytes, sizeBytes } = file;
  return {
    sizeBytes,
    grainBytes: clusterBytes,
    has: (offset) => file.has(Math.floor(offset / clusterBytes)),
    async read(offset, length) {
      const cluster = await file.cluster(Math.floor(offset / clusterBytes));
      const start = offset % clusterBytes;
      // A part of a larger cluster, once kept, would keep all of it.
      if (!cluster || cluster.length === length) return cluster;
      return Buffer.from(cluster.subarray(start, start + length));
    },
  };
}

async function rawLayer(handle: FileHandle): Promise<Layer> {
  const read = reader(handle);
  return {
    sizeBytes: (await handle.stat()).size,
    grainBytes: chunkBytes,
    has: async () => true,
    async read(offset, length) {
      const bytes = await read(offset, length);
      return bytes.length === length ? bytes : Buffer.concat([bytes, Buffer.alloc(length - bytes.length)]);
    },
  };
}
