/**
 * Roots in snapshots, read as archives. A container's is mounted read-only; a virtual machine's disk is never mounted, nor
 * opened by a tool that follows what its header says: its header may be the work of whoever took QEMU over.
 */
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { DiskView } from "../drift/disk-view.ts";
import { surveyUnclean } from "../drift/open-unclean.ts";
import { takingTurns } from "../drift/taking-turns.ts";
import { defaultMaxDiskBytes } from "../images/disk-import.ts";
import { archiveFileSystems } from "../images/ext4-archive.ts";
import type { ImageStore } from "../images/image-store.ts";
import type { ReadAt } from "../images/partition-table.ts";
import { withTreeArchive } from "../images/tree-archive.ts";
import { exists } from "./data-disks.ts";
import { mountFileReadOnly, mountLayers, unmount } from "./mounts.ts";

/** Of a whole disk, read and handed on at once. */
const pieceBytes = 1024 ** 2;

type Use<Result> = (archive: AsyncIterable<Uint8Array>) => Promise<Result>;

/** A root in a snapshot. */
export interface RootPart {
  /** With its `volume.img` or `disk.qcow2`. */
  directory: string;
  images: Pick<ImageStore, "containerTree" | "vmDisk">;
  /** What it is based on. */
  imageDigest: string;
}

const machineDisk = "disk.qcow2";

/** All files of it. @throws Unsupported for a machine's disk that is not read here. */
export async function readRoot<Result>(
  { directory, images, imageDigest }: RootPart,
  use: Use<Result>,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<Result> {
  const disk = join(directory, machineDisk);
  if (await exists(disk)) {
    const { path } = await images.vmDisk(imageDigest, signal);
    return readMachineRoot(disk, path, use);
  }
  const lower = await images.containerTree(imageDigest, signal);
  return readContainerRoot(directory, lower, use, { clock, signal });
}

/** A machine's disk as the machine sees it, to its end. @throws Unsupported for what could not be an image again. */
export async function readRootDisk<Result>(
  { directory, images, imageDigest }: RootPart,
  use: (disk: AsyncIterable<Uint8Array>) => Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  const disk = join(directory, machineDisk);
  if (!(await exists(disk)))
    throw new StrataError("NotFound", "the snapshot has no disk of the virtual machine");
  const { path } = await images.vmDisk(imageDigest, signal);
  return readMachineDisk(disk, path, use, signal);
}

async function readContainerRoot<Result>(
  directory: string,
  lower: { path: string; idBase: number },
  use: Use<Result>,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<Result> {
  const volume = join(directory, "volume");
  const merged = join(directory, "merged");
  const release = async () => {
    for (const path of [merged, volume]) await unmount(path, clock, signal);
  };
  await release();
  for (const path of [volume, merged]) await mkdir(path, { recursive: true, mode: 0o700 });
  try {
    await mountFileReadOnly(join(directory, "volume.img"), volume, signal);
    await mountLayers([join(volume, "upper"), lower.path], merged, signal);
    return await withTreeArchive({ path: merged, idBase: lower.idBase }, use);
  } finally {
    await release();
  }
}

/** `path`: the machine's own file, over `base`. */
async function readMachineRoot<Result>(path: string, base: string, use: Use<Result>): Promise<Result> {
  await using disk = await openMachineDisk(path, base);
  const { fileSystems, problem } = await surveyUnclean(takingTurns(disk.read), disk.sizeBytes);
  if (fileSystems) return await use(archiveFileSystems(fileSystems));
  const why = problem?.message ?? "no root file system was found on it";
  throw new StrataError("Unsupported", `the virtual machine's disk cannot be read: ${why}`, {
    cause: problem,
  });
}

async function readMachineDisk<Result>(
  path: string,
  base: string,
  use: (disk: AsyncIterable<Uint8Array>) => Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  await using disk = await openMachineDisk(path, base);
  const { sizeBytes } = disk;
  const read = takingTurns(disk.read, signal);
  if (sizeBytes > defaultMaxDiskBytes) {
    const [size, limit] = [formatBytes(sizeBytes), formatBytes(defaultMaxDiskBytes)];
    throw new StrataError(
      "Unsupported",
      `the virtual machine's disk has ${size}; an image's has ${limit} at most`,
    );
  }
  if (!(await surveyUnclean(read, sizeBytes)).firmware) {
    const message =
      "the virtual machine's disk has no boot loader any more that a BIOS or UEFI firmware would start";
    throw new StrataError("Unsupported", message);
  }
  return await use(piecesOf(takingTurns(disk.readOnce, signal), sizeBytes));
}

async function* piecesOf(read: ReadAt, sizeBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < sizeBytes; at += pieceBytes)
    yield await read(at, Math.min(pieceBytes, sizeBytes - at));
}

function openMachineDisk(path: string, base: string): Promise<DiskView> {
  return DiskView.open([
    { path, format: "qcow2" },
    { path: base, format: "qcow2" },
  ]);
}

const incompatibleExternalData = 4n;

/**
 * The file is nothing but an overlay over `base`, by its own header: then tools may open it.
 * @throws Unavailable when it names any other file.
 */
export async function requireOverlay(path: string, base: string): Promise<void> {
  const header = Buffer.alloc(64 * 1024);
  {
    await using file = await open(path, "r");
    await file.read(header, 0, header.length, 0);
  }
  const version = header.readUInt32BE(4);
  const at = Number(header.readBigUInt64BE(8));
  const length = header.readUInt32BE(16);
  const features = version === 3 ? header.readBigUInt64BE(72) : 0n;
  const isQcow2 = header.readUInt32BE(0) === 0x514649fb && (version === 2 || version === 3);
  const named = at + length <= header.length ? header.toString("utf8", at, at + length) : "";
  if (isQcow2 && named === base && (features & incompatibleExternalData) === 0n) return;
  throw new StrataError("Unavailable", "the virtual machine's disk is not based on its image any more", {
    detail: `${path}: based on ${JSON.stringify(named.slice(0, 200))}, expected ${base}`,
  });
}
