/**
 * Root disks on this host, one directory a volume: `DIR/UID/`. A container's is a sparse file with its own file system
 * (so its size is a real limit on any host), holding the writable layer over the image's tree; a VM's is a qcow2
 * overlay (depth 1) over the image's base disk. Volumes that users made are there as well (see data-disks.ts).
 */
import type { GuestRoot } from "../../drivers/driver.ts";
import type { Stood } from "./data-disks.ts";
import type { LostPools, PoolPlace } from "./data-files.ts";
import type { DiskPart } from "./disk-parts.ts";
import type { CopyRequest, PlannedCopy } from "./planned-copies.ts";
import type { VolumeRoom } from "./write-holds.ts";

export interface RootDiskRequest {
  uid: string;
  type: "vm" | "container";
  sizeMib: number;
  imageDigest: string;
  /** More than before: the root is made anew, of this image, and what was on it is lost. Default 0. */
  generation?: number;
  /** What is on it at first: a root of the same type that was made from the same image; as large or larger. */
  source?: DiskPart;
}

/** A volume's disk, as large as asked for, with a file system that is made with it. */
export interface DataDiskRequest {
  uid: string;
  sizeMib: number;
  fileSystem?: "ext4" | "xfs" | undefined;
  /** `full`: all of its space is taken at once. Default: thin. */
  allocation?: "thin" | "full" | undefined;
  /** Where it is, or is to be. Default: here. */
  pool?: PoolPlace | undefined;
}

/** Id 0 of the file system is shown as idBase; idCount ids follow. */
export interface IdRange {
  idBase: number;
  idCount: number;
}

export interface Disks {
  /**
   * Makes the disk where it is missing, mounts what must be mounted (again, after a reboot of the host), and says how a
   * guest uses it. Idempotent; an interrupted call is completed by the next. A root that is made anew is the old one, as
   * it was, or the new one, complete, whenever somebody looks; its guest must not run.
   * @throws Unavailable without space, or while the old root is in use; Invalid when the image does not fit into sizeMib;
   * Conflict for a generation before the one that is there.
   */
  ensureRoot(request: RootDiskRequest, signal: AbortSignal): Promise<GuestRoot>;
  /**
   * A volume as a disk file, made where it is missing, grown where it is smaller. No mount of this host uses it then.
   * Idempotent. @throws Conflict while one does; Invalid when it is larger than asked for; Unavailable without space.
   */
  lendData(request: DataDiskRequest, signal: AbortSignal): Promise<string>;
  /**
   * The same as a mounted file system, as large as the volume, its owners shifted. Idempotent.
   * @throws as lendData; Unavailable when the file system is damaged; Unsupported when it is mounted, and this host cannot
   * grow it before it is mounted anew.
   */
  mountData(
    request: DataDiskRequest & { fileSystem: "ext4" | "xfs" },
    ids: IdRange,
    signal: AbortSignal,
  ): Promise<string>;
  /**
   * A copy of a volume's disk as it is at one moment, in `to`, which shares blocks with it where the file system here can.
   * What this host has mounted of it is kept still for what was not copied before: then `frozen`. A virtual machine that
   * has it is the caller's to keep still. An existing copy is success, a failed one leaves nothing. It is made in `pool`, by default here.
   * @throws NotFound without such a volume here; Unavailable without space.
   */
  copyData(from: string | DiskPart, to: string, signal: AbortSignal, pool?: PoolPlace): Promise<Stood>;
  /**
   * Copies of disks, roots and volumes, as all of them are at one moment, as parts of one snapshot `to`. What this host
   * has mounted of them is kept still as with copyData; virtual machines are the caller's to keep still. Nothing
   * can be made of `to` before all of it is there. Each copy lies where its disk does. An existing one is
   * success.
   * @throws NotFound for a disk that is not here; Unavailable without space.
   */
  copyTogether(disks: readonly string[], to: string, signal: AbortSignal): Promise<Stood>;
  /**
   * For copies as of copyData and copyTogether that somebody else makes, who has the disks in hand: which files are to be
   * copied where. What was planned for `to` before is dropped; nothing can be made of `to` before `finishCopies`.
   * @throws NotFound for a disk that is not here; Unavailable without space.
   */
  planCopies(request: CopyRequest, to: string, signal: AbortSignal): Promise<readonly PlannedCopy[]>;
  /**
   * The file of the memory in a snapshot of several disks: where it is, or where it is to be written after `planCopies` with
   * room for it; `finishCopies` takes what is there. @throws NotFound where there is none, and none was planned.
   */
  memoryFile(snapshot: string): Promise<string>;
  /** Makes some of them here; the caller keeps writers still. */
  copyPlanned(copies: readonly Pick<PlannedCopy, "from" | "to">[], signal: AbortSignal): Promise<void>;
  /** All of them are complete: they come on disk and get their names. May be repeated. @throws NotFound without a plan. */
  finishCopies(request: CopyRequest, to: string, signal: AbortSignal): Promise<void>;
  /**
   * Puts disks back to what they were in the snapshot `from`. Each of them is as before or as in the snapshot, whenever
   * this is interrupted, and the next call completes it. No mount of this host uses them then.
   * @throws Conflict while something does, NotFound, Unavailable without space; with nothing changed.
   */
  restoreTogether(from: string, disks: readonly string[], signal: AbortSignal): Promise<void>;
  /** The space that the file of a volume, or of a container's root, is in. @throws NotFound without one; Unavailable while its pool is not there. */
  room(uid: string): Promise<VolumeRoom>;
  /** Whoever writes to it where it is mounted waits, with all on disk that was written before. Idempotent. */
  hold(uid: string, signal: AbortSignal): Promise<void>;
  /** They go on; not held is success. */
  letGo(uid: string): Promise<void>;
  /** Uids of volumes and roots that are held; also by a predecessor. */
  held(): Promise<readonly string[]>;
  /** The file of a volume, or of a copy of one. @throws NotFound; Unavailable while its pool is not there. */
  dataFile(uid: string | DiskPart): Promise<string>;
  /**
   * Makes a volume's disk of what `fill` writes into a new file at the path it is given, and grows it to the size asked for.
   * Existing is success; a failure leaves nothing.
   */
  fillData(
    request: DataDiskRequest,
    fill: (path: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * Calls `use` with the root that is a part of a snapshot as an archive: all of its tree, owners as in the guest. The
   * bytes come as fast as they are read. @throws NotFound; Unsupported for a disk whose file system cannot be read here.
   */
  readRoot<Result>(
    part: DiskPart,
    imageDigest: string,
    use: (archive: AsyncIterable<Uint8Array>) => Promise<Result>,
    signal: AbortSignal,
  ): Promise<Result>;
  /**
   * Calls `use` with the root disk of a machine that is a part of a snapshot, as the machine sees it, byte for byte.
   * @throws NotFound; Unsupported when no firmware would start a boot loader of it any more, or it is larger than an image's may
   * be.
   */
  readRootDisk<Result>(
    part: DiskPart,
    imageDigest: string,
    use: (disk: AsyncIterable<Uint8Array>) => Promise<Result>,
    signal: AbortSignal,
  ): Promise<Result>;
  /**
   * Lets writers go on that a killed predecessor had stopped in the middle of a copy. Whoever it held for lack of space is
   * held on, until `letGo`.
   */
  recover(): Promise<void>;
  /** No mount of this host uses the volume afterwards; absent is success. @throws Conflict while something does. */
  releaseData(uid: string, signal: AbortSignal): Promise<void>;
  /**
   * Unmounts and removes; absent is success. The guest must not run. What is in a pool that is `lost` is forgotten.
   * @throws Unavailable while a pool that it is in is not there, and not lost.
   */
  remove(uid: string, signal: AbortSignal, lost?: LostPools): Promise<void>;
  /** Uids of all disks here, orphans included. */
  list(): Promise<string[]>;
  /** Bytes really taken on the host. */
  usedBytes(uid: string): Promise<number>;
  /** Of the file system that holds the disks. */
  capacity(): Promise<{ totalMib: number; freeMib: number }>;
}
