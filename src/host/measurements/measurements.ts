/**
 * What guests and host use, as counters and levels: whoever reads them makes rates of it. Reading is cheap and does not
 * wait, because it happens for every guest every few seconds.
 */

/** Where a guest is. */
export interface GuestPlace {
  uid: string;
  type: "vm" | "container";
  /** Its main process on the host. */
  pid: number;
  /** Names of its bridge ports in its network's namespace. */
  ports: readonly string[];
}

/** Counters since some moment of the guest's life; they may begin anew. Absent: not known here. */
export interface GuestCounters {
  cpuMicros: number;
  /** In use now. Of a VM: what its process on the host uses, which is what the guest has touched and a little more. */
  memoryBytes: number;
  diskReadBytes?: number;
  diskWrittenBytes?: number;
  receivedBytes?: number;
  sentBytes?: number;
}

/** Undefined once the guest is gone. */
export type GuestMeter = () => GuestCounters | undefined;

export interface HostReading {
  /** Of all CPUs together, since the host booted. */
  cpuBusyMs: number;
  cpuTotalMs: number;
  memoryUsedBytes: number;
  memoryTotalBytes: number;
  /** Average of the last minute. */
  load: number;
  /** Of the file system of the state directory. */
  diskUsedBytes: number;
  diskTotalBytes: number;
}

export interface Measurements {
  /** Undefined when the process is not that guest's (any more). */
  open(place: GuestPlace): GuestMeter | undefined;
  host(): HostReading;
}
