/**
 * Control groups of guests, on unified (v2), hybrid and legacy (v1) hosts alike. Each guest has one group,
 * `/NAMESPACE/UID`, in every hierarchy that matters; limits are in force before its first process enters.
 */

export interface CgroupLimits {
  cpus?: number;
  memoryMib?: number;
  processes?: number;
}

/** How the kernel's hierarchies are mounted on this host. */
export type CgroupLayout = "v2" | "hybrid" | "v1";

export interface Cgroups {
  readonly layout: CgroupLayout;
  /** Makes the group and sets its limits; repeating changes the limits. @throws Unavailable with what is missing. */
  ensure(group: string, limits: CgroupLimits): Promise<void>;
  /** The `cgroup.procs` files to which a process writes its pid to enter the group. */
  procsFiles(group: string): string[];
  /** Process ids inside, sub-groups included. */
  pids(group: string): Promise<number[]>;
  /** Kills every process inside and waits until none is left. */
  kill(group: string): Promise<void>;
  /** Removes the group and its sub-groups; absent is success. It must be empty. */
  remove(group: string): Promise<void>;
  /** Groups directly below `parent`. */
  list(parent: string): Promise<string[]>;
  /** Limits and use as the kernel tells them. */
  usage(group: string): Promise<{ memoryBytes: number; cpuMicros: number; processes: number }>;
  /**
   * Calls back when the group becomes empty or populated (v2 and hybrid: from the kernel's notification on
   * `cgroup.events`; v1: by looking once a second). The returned function ends it.
   */
  watch(group: string, onChange: (populated: boolean) => void): () => void;
}
