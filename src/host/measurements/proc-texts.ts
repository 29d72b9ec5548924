/** Texts of /proc (proc(5)) as numbers. */

/**
 * The control group of a guest, from /proc/PID/cgroup: up to the part that is named for it, by its uid or, for Docker, by
 * the container's id. Undefined when the process is in none of that guest's.
 */
export function guestGroup(text: string, uid: string): string | undefined {
  for (const line of text.split("\n")) {
    const path = line.split(":").slice(2).join(":");
    const parts = path.split("/").filter((part) => part !== "");
    const at = parts.findIndex((part) => part === uid || /^(?:docker-)?[0-9a-f]{64}(?:\.scope)?$/.test(part));
    if (at >= 0) return parts.slice(0, at + 1).join("/");
  }
  return undefined;
}

interface Traffic {
  receivedBytes: number;
  sentBytes: number;
}

/** From /proc/PID/net/dev: of the interfaces that `wanted` names. */
export function trafficOf(text: string, wanted: (name: string) => boolean): Traffic {
  const traffic = { receivedBytes: 0, sentBytes: 0 };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 0 || !wanted(line.slice(0, colon).trim())) continue;
    const numbers = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/);
    traffic.receivedBytes += Number(numbers[0] ?? 0);
    traffic.sentBytes += Number(numbers[8] ?? 0);
  }
  return traffic;
}

/** From /proc/PID/io: what really went to and came from disks. */
export function diskOf(text: string): { diskReadBytes: number; diskWrittenBytes: number } {
  return {
    diskReadBytes: named(text, /^read_bytes: (\d+)$/m),
    diskWrittenBytes: named(text, /^write_bytes: (\d+)$/m),
  };
}

/** From /proc/stat, in milliseconds. A hundredth of a second is the unit on all architectures. */
export function cpuOf(text: string): { cpuBusyMs: number; cpuTotalMs: number } {
  const line = /^cpu +(.*)$/m.exec(text)?.[1] ?? "";
  // user nice system idle iowait irq softirq steal; guest times are in user and nice already.
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line
    .split(" ")
    .map((part) => Number(part) * 10);
  const cpuBusyMs = user + nice + system + irq + softirq + steal;
  return { cpuBusyMs, cpuTotalMs: cpuBusyMs + idle + iowait };
}

/** From /proc/meminfo. */
export function memoryOf(text: string): { memoryUsedBytes: number; memoryTotalBytes: number } {
  const total = named(text, /^MemTotal: +(\d+) kB$/m) * 1024;
  return {
    memoryUsedBytes: total - named(text, /^MemAvailable: +(\d+) kB$/m) * 1024,
    memoryTotalBytes: total,
  };
}

/** From /proc/loadavg. */
export function loadOf(text: string): number {
  return Number(text.split(" ", 1)[0]);
}

function named(text: string, pattern: RegExp): number {
  return Number(pattern.exec(text)?.[1] ?? 0);
}
