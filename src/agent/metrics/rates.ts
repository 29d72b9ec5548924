/** Counters as rates, pure. */
import type { Instant } from "../../core/clock.ts";
import type { GuestCounters, HostReading } from "../../host/measurements/measurements.ts";

export interface Reading<Counters> {
  /** Monotonic, in milliseconds. */
  atMs: Instant;
  counters: Counters;
}

export type Values = Record<string, number>;

const mebibyte = 1024 ** 2;

/** What happened per second; undefined for a counter that went back (it began anew) or that is not known. */
export function ratePerSecond(
  before: number | undefined,
  after: number | undefined,
  elapsedMs: number,
): number | undefined {
  if (before === undefined || after === undefined || after < before || elapsedMs <= 0) return undefined;
  return ((after - before) / elapsedMs) * 1_000;
}

/** Metrics of an instance (kinds/metric-names.ts). Rates need a reading before. */
export function instanceValues(
  before: Reading<GuestCounters> | undefined,
  after: Reading<GuestCounters>,
  promised: { cpus: number; memoryMib: number },
): Values {
  const elapsedMs = before === undefined ? 0 : after.atMs - before.atMs;
  const rate = (name: keyof GuestCounters) =>
    ratePerSecond(before?.counters[name], after.counters[name], elapsedMs);
  const cpu = rate("cpuMicros");
  const memory = after.counters.memoryBytes / mebibyte;
  return known({
    cpu: cpu === undefined ? undefined : cpu / 1e4 / promised.cpus,
    memory,
    "memory-percent": (memory / promised.memoryMib) * 100,
    "disk-read": rate("diskReadBytes"),
    "disk-written": rate("diskWrittenBytes"),
    received: rate("receivedBytes"),
    sent: rate("sentBytes"),
  });
}

/** Metrics of a host. */
export function hostValues(before: HostReading | undefined, after: HostReading): Values {
  const total = before === undefined ? 0 : after.cpuTotalMs - before.cpuTotalMs;
  const busy = before === undefined ? 0 : after.cpuBusyMs - before.cpuBusyMs;
  return known({
    cpu: total > 0 && busy >= 0 ? (busy / total) * 100 : undefined,
    memory: after.memoryUsedBytes / mebibyte,
    "memory-percent": share(after.memoryUsedBytes, after.memoryTotalBytes),
    load: after.load,
    "disk-percent": share(after.diskUsedBytes, after.diskTotalBytes),
  });
}

function share(part: number, whole: number): number | undefined {
  return whole > 0 ? (part / whole) * 100 : undefined;
}

/** What is known, to the hundredth. A plain loop: it runs for every guest of the host. */
function known(values: Readonly<Record<string, number | undefined>>): Values {
  const found: Values = {};
  for (const name in values) {
    const value = values[name];
    if (value !== undefined && Number.isFinite(value)) found[name] = Math.round(value * 100) / 100;
  }
  return found;
}
