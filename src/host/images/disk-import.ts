/**
 * A cloud image (qcow2) as a root archive. Nothing of it is trusted: qemu-img looks at it and unpacks it in a jail;
 * partition table and file system are read by code of our own, never by the kernel.
 */
import { chmod, chown, open, statfs } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { type Bind, runContained } from "./contained-process.ts";
import { archiveFileSystems, type Mounted } from "./ext4-archive.ts";
import { Ext4FileSystem, hasExt4 } from "./ext4-file-system.ts";
import { type ReadAt, readPartitions } from "./partition-table.ts";

export interface DiskImportRequest {
  /** The qcow2 file. */
  path: string;
  job: { path: string; jail: string };
  idBase: number;
  signal: AbortSignal;
}

const maxVirtualBytes = 64 * 1024 ** 3;
const maxMemoryMib = 1024;
const infoSeconds = 30;
const convertSeconds = 1800;

const infoSchema = z.object({
  "virtual-size": z.int().min(0),
  "backing-filename": z.string().optional(),
  "full-backing-filename": z.string().optional(),
  encrypted: z.boolean().optional(),
  "format-specific": z
    .object({
      data: z.object({ "data-file": z.string().optional(), corrupt: z.boolean().optional() }).optional(),
    })
    .optional(),
});

/**
 * @throws Invalid for a disk that refers to other files, is encrypted, too large or damaged; Unsupported when no root
 * file system on it can be read.
 */
export async function* archiveOfDisk(request: DiskImportRequest): AsyncGenerator<Buffer, void, void> {
  await checkDisk(request);
  const raw = await convertToRaw(request);
  await using file = await open(raw, "r");
  const { size } = await file.stat();
  const readAt: ReadAt = async (offset, length) => {
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await file.read(buffer, 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
  yield* archiveFileSystems(await findFileSystems(readAt, size));
}

async function checkDisk(request: DiskImportRequest): Promise<void> {
  const args = ["info", "--output=json", "-f", "qcow2", "/disk"];
  const { status, stdout, stderr } = await runQemuImg(request, args, infoSeconds, []);
  if (status !== 0) throw notADisk(stderr);
  const info = infoSchema.safeParse(JSON.parse(stdout)).data;
  if (!info) throw notADisk(stdout.slice(0, 2000));
  const refuse = (what: string) => new StrataError("Invalid", `the disk image ${what}`);
  if (info["backing-filename"] !== undefined || info["full-backing-filename"] !== undefined) {
    throw refuse(
      "is only the difference to a backing file; convert it to a complete one with qemu-img convert",
    );
  }
  const data = info["format-specific"]?.data;
  if (data?.["data-file"] !== undefined)
    throw refuse("keeps its data in another file; convert it with qemu-img convert");
  if (info.encrypted) throw refuse("is encrypted");
  if (data?.corrupt) throw refuse("is marked as corrupt; repair it with qemu-img check -r all");
  if (info["virtual-size"] > maxVirtualBytes) {
    const [size, limit] = [formatBytes(info["virtual-size"]), formatBytes(maxVirtualBytes)];
    throw refuse(`has a virtual size of ${size}; ${limit} is the limit`);
  }
  const { bavail, bsize } = await statfs(request.job.path);
  if (info["virtual-size"] > bavail * bsize) {
    const need = formatBytes(info["virtual-size"]);
    throw new StrataError("Unavailable", `there is no space left to import a disk of ${need} virtual size`);
  }
}

async function convertToRaw(request: DiskImportRequest): Promise<string> {
  const raw = join(request.job.path, "disk.raw");
  await (await open(raw, "wx", 0o600)).close();
  await chown(raw, request.idBase, request.idBase);
  const args = ["convert", "-f", "qcow2", "-O", "raw", "-S", "64k", "/disk", "/raw"];
  const binds = [{ from: raw, to: "/raw", writable: true }];
  const { status, stderr } = await runQemuImg(request, args, convertSeconds, binds);
  if (status !== 0) throw notADisk(stderr);
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

function notADisk(detail: string): StrataError {
  return new StrataError("Invalid", "this is no qcow2 disk image, or it is damaged", {
    detail: detail.slice(-2000),
  });
}

/** The root file system first, then a separate /boot. */
async function findFileSystems(read: ReadAt, sizeBytes: number): Promise<Mounted[]> {
  const partitions = await readPartitions(read, sizeBytes);
  const candidates = partitions.length > 0 ? partitions : [{ offsetBytes: 0, sizeBytes }];
  const roots: Ext4FileSystem[] = [];
  const boots: Ext4FileSystem[] = [];
  let lastError: unknown;
  for (const { offsetBytes, sizeBytes: length } of candidates) {
    const readPart: ReadAt = (offset, count) =>
      read(offsetBytes + offset, Math.max(0, Math.min(count, length - offset)));
    if (!(await hasExt4(readPart))) continue;
    try {
      const fileSystem = await Ext4FileSystem.open(readPart);
      const names = await namesInRoot(fileSystem);
      if (names.has("etc") && (names.has("usr") || names.has("sbin"))) roots.push(fileSystem);
      else if ([...names].some((name) => name.startsWith("vmlinuz"))) boots.push(fileSystem);
    } catch (error) {
      lastError = error;
    }
  }
  const root = roots.sort((a, b) => b.sizeBytes - a.sizeBytes)[0];
  if (!root) {
    if (lastError !== undefined) throw lastError;
    throw new StrataError(
      "Unsupported",
      `no root file system was found on the disk (${candidates.length} partitions); ext2, ext3 and ext4 are read`,
    );
  }
  return [
    { fileSystem: root, at: "" },
    ...boots.slice(0, 1).map((fileSystem) => ({ fileSystem, at: "boot" })),
  ];
}

async function namesInRoot(fileSystem: Ext4FileSystem): Promise<Set<string>> {
  const names = new Set<string>();
  for await (const { name } of fileSystem.entries(await fileSystem.root())) names.add(name);
  return names;
}
