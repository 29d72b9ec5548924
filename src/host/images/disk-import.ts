/**
 * A disk image of any format as a raw disk. Nothing of it is trusted: its header is read by code of our own, which
 * refuses whatever names another file, before qemu-img unpacks it in a jail that has no other file of the host's.
 */
import { chmod, chown, open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { type Bind, runContained } from "./contained-process.ts";
import { type Packing, unpackStream } from "./decompression.ts";
import { type DiskFormat, refuseDisk, sectorBytes } from "./disk-formats/disk-header.ts";
import { readDiskHeader } from "./disk-formats/read-disk-header.ts";
import type { ReadAt } from "./partition-table.ts";

export interface DiskImportRequest {
  /** The disk image; belongs to the work and may be changed. */
  path: string;
  format: DiskFormat;
  job: { path: string; jail: string };
  idBase: number;
  /** Of the disk that a guest would see. */
  maxDiskBytes: number;
  signal: AbortSignal;
}

export const defaultMaxDiskBytes = 64 * 1024 ** 3;
const maxMemoryMib = 1024;
const infoSeconds = 30;
const convertSeconds = 1800;
const copyChunkBytes = 1024 ** 2;

const infoSchema = z.object({
  "virtual-size": z.int().min(0),
  "backing-filename": z.string().optional(),
  "full-backing-filename": z.string().optional(),
  encrypted: z.boolean().optional(),
});

/**
 * The disk as a raw file in the work's directory.
 * @throws Invalid for a disk that refers to other files, is encrypted, too large or damaged; Unavailable without space.
 */
export async function toRawDisk(request: DiskImportRequest): Promise<{ path: string; sizeBytes: number }> {
  const { path, format, maxDiskBytes, signal } = request;
  let sizeBytes: number;
  {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    sizeBytes = (await readDiskHeader(reader(file), format, size)).virtualBytes;
  }
  signal.throwIfAborted();
  if (sizeBytes > maxDiskBytes) {
    const [size, limit] = [formatBytes(sizeBytes), formatBytes(maxDiskBytes)];
    throw refuseDisk(`has a virtual size of ${size}; ${limit} is the limit`);
  }
  if (format === "raw") return { path, sizeBytes: sizeBytes - (sizeBytes % sectorBytes) };
  await requireSpace(request.job.path, sizeBytes);
  await checkAsQemuSees(request, sizeBytes);
  const raw = await convertToRaw(request);
  await rm(path);
  return { path: raw, sizeBytes };
}

/** Reads from an open file; fewer bytes at its end. */
export function reader(file: { read: Awaited<ReturnType<typeof open>>["read"] }): ReadAt {
  return async (offset, length) => {
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await file.read(buffer, 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
}

/**
 * A packed disk image unpacked beside itself, zeros as holes.
 * @throws Invalid for damaged data and for more than a disk may have; Unavailable without space.
 */
export async function unpackDisk(
  packed: { path: string; packing: Packing; read(): AsyncIterable<Uint8Array> },
  maxDiskBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const path = `${packed.path}.unpacked`;
  await using file = await open(path, "wx", 0o600);
  let at = 0;
  for await (const chunk of unpackStream(packed.read(), packed.packing, signal)) {
    if (at + chunk.length > maxDiskBytes) {
      throw refuseDisk(`unpacks to more than ${formatBytes(maxDiskBytes)}, the limit`);
    }
    if (!isZero(chunk)) await writeAll(file, chunk, at);
    at += chunk.length;
  }
  await file.truncate(at);
  await rm(packed.path);
  return path;
}

const zeros = Buffer.alloc(copyChunkBytes);

/** Of at most 1 MiB; larger chunks are never called zero. */
export function isZero(chunk: Uint8Array): boolean {
  return chunk.length <= zeros.length && zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
}

async function writeAll(
  file: Awaited<ReturnType<typeof open>>,
  chunk: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const length = Math.min(copyChunkBytes, chunk.length - done);
    done += (await file.write(chunk, done, length, position + done)).bytesWritten;
  }
}

async function requireSpace(directory: string, sizeBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (sizeBytes <= bavail * bsize) return;
  const need = formatBytes(sizeBytes);
  throw new StrataError("Unavailable", `there is no space left to import a disk of ${need} virtual size`);
}

/** A second opinion: QEMU must see the same disk in it, and no other file. */
async function checkAsQemuSees(request: DiskImportRequest, sizeBytes: number): Promise<void> {
  const args = ["info", "--output=json", "-f", request.format, "/disk"];
  const { status, stdout, stderr } = await runQemuImg(request, args, infoSeconds, []);
  if (status !== 0) throw notADisk(request, stderr);
  const info = infoSchema.safeParse(JSON.parse(stdout)).data;
  const right =
    info?.["virtual-size"] === sizeBytes &&
    info["backing-filename"] === undefined &&
    info["full-backing-filename"] === undefined &&
    info.encrypted !== true;
  if (!right) throw notADisk(request, stdout);
}

async function convertToRaw(request: DiskImportRequest): Promise<string> {
  const raw = join(request.job.path, "disk.raw");
  await (await open(raw, "wx", 0o600)).close();
  await chown(raw, request.idBase, request.idBase);
  const args = ["convert", "-f", request.format, "-O", "raw", "-S", "64k", "/disk", "/raw"];
  const binds = [{ from: raw, to: "/raw", writable: true }];
  const { status, stderr } = await runQemuImg(request, args, convertSeconds, binds);
  if (status !== 0) throw notADisk(request, stderr);
  return raw;
}

async function runQemuImg(
  request: DiskImportRequest,
  args: string[],
  seconds: number,
  binds: readonly Bind[],
) {
  const { path, job, idBase, signal } = request;
  await chmod(path, 0o644);
  return runContained("qemu-img", args, {
    jail: job.jail,
    idBase,
    binds: [{ from: path, to: "/disk", writable: false }, ...binds],
    signal,
    timeoutMs: seconds * 1000,
    maxCpuSeconds: seconds,
    maxMemoryMib,
  });
}

function notADisk({ format }: DiskImportRequest, detail: string): StrataError {
  return new StrataError("Invalid", `this is no ${format} disk image, or it is damaged`, {
    detail: detail.slice(-2000),
  });
}
