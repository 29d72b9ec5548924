/**
 * Root disks on this host, one directory a volume: `DIR/UID/`. A container's is a sparse file with its own file system
 * (so its size is a real limit on any host), holding the writable layer over the image's tree; a VM's is a qcow2
 * overlay (depth 1) over the image's base disk.
 */
import type { GuestRoot } from "../../drivers/driver.ts";

export interface RootDiskRequest {
  uid: string;
  type: "vm" | "container";
  sizeMib: number;
  imageDigest: string;
}

export interface Disks {
  /**
   * Makes the disk where it is missing, mounts what must be mounted (again, after a reboot of the host), and says how a
   * guest uses it. Idempotent; an interrupted call is completed by the next. @throws Unavailable without space; Invalid
   * when the image does not fit into sizeMib.
   */
  ensureRoot(request: RootDiskRequest, signal: AbortSignal): Promise<GuestRoot>;
  /** Unmounts and removes; absent is success. The guest must not run. */
  remove(uid: string, signal: AbortSignal): Promise<void>;
  /** Uids of all disks here, orphans included. */
  list(): Promise<string[]>;
  /** Bytes really taken on the host. */
  usedBytes(uid: string): Promise<number>;
  /** Of the file system that holds the disks. */
  capacity(): Promise<{ totalMib: number; freeMib: number }>;
}
