import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CgroupCounters, CgroupMeter } from "./cgroups.ts";

/** Where a controller's groups are, and in which version's files it counts. */
export interface CountingHierarchy {
  path: string;
  version: 1 | 2;
  controllers: readonly string[];
}

/** The files are found once; a reading is four or five small synchronous reads, which cost less than waiting for them. */
export function createCgroupMeter(hierarchies: readonly CountingHierarchy[], group: string): CgroupMeter {
  const inGroup = (controller: string) => {
    const found = hierarchies.find(({ controllers }) => controllers.includes(controller));
    return found && { version: found.version, file: (name: string) => join(found.path, group, name) };
  };
  const cpu = inGroup("cpu");
  const readCpu = cpu?.version === 2 ? cpuOfStat(cpu.file("cpu.stat")) : cpuOfAccounting(inGroup("cpuacct"));
  const memory = inGroup("memory");
  const readMemory =
    memory?.version === 2
      ? workingSet(memory.file("memory.current"), memory.file("memory.stat"), "inactive_file")
      : workingSet(memory?.file("memory.usage_in_bytes"), memory?.file("memory.stat"), "total_inactive_file");
  const io = inGroup("io");
  const legacyIo = inGroup("blkio")?.file("blkio.throttle.io_service_bytes_recursive");
  return () => {
    const cpuMicros = readCpu();
    const memoryBytes = readMemory();
    if (cpuMicros === undefined || memoryBytes === undefined) return undefined;
    const disk = io ? ioOfStat(read(io.file("io.stat"))) : ioOfThrottle(read(legacyIo));
    return { cpuMicros, memoryBytes, ...disk };
  };
}

type Reader = () => number | undefined;
type Disk = Pick<CgroupCounters, "diskReadBytes" | "diskWrittenBytes">;

function cpuOfStat(file: string): Reader {
  return () => field(read(file), "usage_usec");
}

/** In nanoseconds. */
function cpuOfAccounting(accounting: { file(name: string): string } | undefined): Reader {
  const file = accounting?.file("cpuacct.usage");
  return () => {
    const text = read(file);
    return text === undefined ? undefined : Math.round(Number(text) / 1_000);
  };
}

/** As Kubernetes and Docker have it: use less the file caches on the inactive list. */
function workingSet(current: string | undefined, stat: string | undefined, inactive: string): Reader {
  return () => {
    const used = read(current);
    if (used === undefined) return undefined;
    return Math.max(0, Number(used) - (field(read(stat), inactive) ?? 0));
  };
}

/** `8:0 rbytes=1 wbytes=2 rios=3 …`, a line each device. */
export function ioOfStat(text: string | undefined): Disk {
  return text === undefined
    ? {}
    : { diskReadBytes: sum(text, /\brbytes=(\d+)/g), diskWrittenBytes: sum(text, /\bwbytes=(\d+)/g) };
}

/**
 * `8:0 Read 1`, lines for each device and kind of operation, and a total. Newer kernels count here only once something is
 * throttled: without a line of a device, nothing is known.
 */
export function ioOfThrottle(text: string | undefined): Disk {
  if (text === undefined || !/^\d+:\d+ /m.test(text)) return {};
  return {
    diskReadBytes: sum(text, /^\d+:\d+ Read (\d+)$/gm),
    diskWrittenBytes: sum(text, /^\d+:\d+ Write (\d+)$/gm),
  };
}

function sum(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);
}

/** `NAME NUMBER`, on a line of its own. */
function field(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const at = text.startsWith(`${name} `) ? 0 : text.indexOf(`\n${name} `) + 1;
  if (at === 0 && !text.startsWith(`${name} `)) return undefined;
  return Number.parseInt(text.slice(at + name.length + 1), 10);
}

/** Undefined for what is not there, or has just gone. */
function read(file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
