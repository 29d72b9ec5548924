/**
 * Control groups of guests, on unified (v2), hybrid and legacy (v1) hosts alike. Each guest has one group,
 * `/NAMESPACE/UID`, in every hierarchy that matters; limits are in force before its first process enters.
 */

/** What is left out is not limited. */
export interface CgroupLimits {
  /** CPU time per time; fractions are allowed. */
  cpus?: number;
  /** RAM; never continued on swap. */
  memoryMib?: number;
  processes?: number;
  /** Share of the processors while others want them too, 1–10,000. Left out, it stays as it is: 100 at first. */
  cpuWeight?: number;
}

/** Since the group was made, sub-groups included. */
export interface CgroupCounters {
  cpuMicros: number;
  /** In use, less what the kernel would give up first: file caches that are not in use. */
  memoryBytes: number;
  /** Of block devices; absent where the kernel does not count for the group. */
  diskReadBytes?: number;
  diskWrittenBytes?: number;
}

/** Reads at once and does not wait: the files are the kernel's memory. Undefined while there is no such group. */
export type CgroupMeter = () => CgroupCounters | undefined;

/** How the kernel's hierarchies are mounted on this host. */
export type CgroupLayout = "v2" | "hybrid" | "v1";

export interface Cgroups {
  readonly layout: CgroupLayout;
  /** Makes the group and sets its limits; repeating changes the limits. @throws Unavailable with what is missing. */
  ensure(group: string, limits: CgroupLimits): Promise<void>;
  /** The `cgroup.procs` files to which a process writes its pid, in this order, to enter the group. */
  procsFiles(group: string): string[];
  /** Process ids inside, sub-groups included. */
  pids(group: string): Promise<number[]>;
  /** Is any process inside, sub-groups included? False for an absent group. One read where the kernel keeps count. */
  isPopulated(group: string): Promise<boolean>;
  /** Kills every process inside and waits until none is left; absent is success. @throws Timeout when some cannot die. */
  kill(group: string): Promise<void>;
  /** Removes the group and its sub-groups; absent is success. @throws Conflict when processes are inside. */
  remove(group: string): Promise<void>;
  /** Groups directly below `parent`. */
  list(parent: string): Promise<string[]>;
  /** Use as the kernel tells it. @throws NotFound. */
  usage(group: string): Promise<{ memoryBytes: number; cpuMicros: number; processes: number }>;
  /** A meter of that group. It is cheap to read, many times a second. The group need not exist yet. */
  meter(group: string): CgroupMeter;
  /**
   * Calls back when the group becomes empty or populated (v2 and hybrid: from the kernel's notification on
   * `cgroup.events`; v1: by looking once a second). A hint: changes may be merged or reported twice. The returned
   * function ends it. The group must exist (@throws NotFound); its removal is not told.
   */
  watch(group: string, onChange: (populated: boolean) => void): () => void;
}
