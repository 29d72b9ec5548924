/** Storage pools on this host: directories that volumes' files lie in. */
import type { PoolPlace } from "../disks/data-files.ts";

export interface PoolRequest extends PoolPlace {
  type: "directory" | "nfs";
  reflink: "auto" | "required";
  /** It has been ready here before: without its mark it is refused, because what is seen then is not the pool. */
  prepared: boolean;
}

export interface PoolFacts {
  /** As the kernel calls it. */
  fileSystem: string;
  /** Proven by doing it. */
  reflink: boolean;
}

export interface PoolUsage {
  capacityBytes: number;
  /** Of the file system, by whatever is on it. */
  usedBytes: number;
  /** What root can still write. */
  freeBytes: number;
  /** Blocks of the pool's files; shared ones count in each. */
  allocatedBytes: number;
}

export interface Pools {
  /**
   * Looks at the directory, proves what it can, and marks it. Idempotent; changes nothing but the mark.
   * @throws Invalid or Unsupported when it cannot be a pool, Conflict when it is another one's, Unavailable when it is
   * not there (any more).
   */
  open(request: PoolRequest, signal: AbortSignal): Promise<PoolFacts>;
  usage(pool: PoolPlace): Promise<PoolUsage>;
  /** Takes the mark away; absent is success. @throws Conflict while there are files of volumes in it. */
  close(pool: PoolPlace, signal: AbortSignal): Promise<void>;
}
