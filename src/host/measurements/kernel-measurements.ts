import { readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import type { Cgroups } from "../cgroups.ts";
import type { GuestCounters, GuestMeter, GuestPlace, HostReading, Measurements } from "./measurements.ts";
import { cpuOf, diskOf, guestGroup, loadOf, memoryOf, trafficOf } from "./proc-texts.ts";

export interface KernelMeasurementsOptions {
  cgroups: Pick<Cgroups, "meter">;
  stateDir: string;
  /** Default /proc. */
  proc?: string;
}

/**
 * As the kernel counts: control groups for CPU and memory of every guest. Containers: disks by control group, traffic by
 * the interfaces inside. VMs: disks by their process, traffic by the bridge ports in their own card's network (what a port
 * sends, the guest receives); cards in other networks are not counted.
 */
export function createKernelMeasurements(options: KernelMeasurementsOptions): Measurements {
  const { cgroups, stateDir, proc = "/proc" } = options;
  return {
    open(place) {
      const group = guestGroup(read(join(proc, String(place.pid), "cgroup")) ?? "", place.uid);
      return group === undefined ? undefined : openMeter(cgroups, proc, group, place);
    },
    host(): HostReading {
      const { bsize, blocks, bfree } = statfsSync(stateDir);
      return {
        ...cpuOf(read(join(proc, "stat")) ?? ""),
        ...memoryOf(read(join(proc, "meminfo")) ?? ""),
        load: loadOf(read(join(proc, "loadavg")) ?? "0"),
        diskUsedBytes: (blocks - bfree) * bsize,
        diskTotalBytes: blocks * bsize,
      };
    },
  };
}

function openMeter(
  cgroups: Pick<Cgroups, "meter">,
  proc: string,
  group: string,
  { type, pid, ports }: GuestPlace,
): GuestMeter {
  const meter = cgroups.meter(group);
  const devices = join(proc, String(pid), "net", "dev");
  const io = join(proc, String(pid), "io");
  return () => {
    const counters: GuestCounters | undefined = meter();
    if (!counters) return undefined;
    if (type === "container") return { ...counters, ...traffic(devices, (name) => name !== "lo") };
    const own = traffic(devices, (name) => ports.includes(name));
    const swapped = own && { receivedBytes: own.sentBytes, sentBytes: own.receivedBytes };
    const disk = read(io);
    return { ...counters, ...(disk === undefined ? {} : diskOf(disk)), ...swapped };
  };
}

function traffic(devices: string, wanted: (name: string) => boolean) {
  const text = read(devices);
  return text === undefined ? undefined : trafficOf(text, wanted);
}

/** Undefined for what has just gone. */
function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
