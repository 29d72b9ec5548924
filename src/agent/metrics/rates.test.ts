import { describe, expect, test } from "vitest";
import { hostValues, instanceValues, ratePerSecond } from "./rates.ts";

const reading = (atMs: number, cpuMicros: number, more: object = {}) => ({
  atMs,
  counters: { cpuMicros, memoryBytes: 256 * 1024 ** 2, ...more },
});
const promised = { cpus: 2, memoryMib: 512 };

test.each<[string, number | undefined, number | undefined, number, number | undefined]>([
  ["a counter that grew", 1_000, 3_000, 500, 4_000],
  ["one that stood still", 5, 5, 1_000, 0],
  ["one that began anew tells nothing", 5_000, 100, 1_000, undefined],
  ["no reading before", undefined, 100, 1_000, undefined],
  ["not counted here", 100, undefined, 1_000, undefined],
  ["no time between", 1, 2, 0, undefined],
])("%s", (_name, before, after, elapsedMs, rate) => {
  expect(ratePerSecond(before, after, elapsedMs)).toBe(rate);
});

describe("an instance", () => {
  test("the first reading tells levels only", () => {
    expect(instanceValues(undefined, reading(0, 7), promised)).toEqual({ memory: 256, "memory-percent": 50 });
  });

  test("CPU is of what was promised, bytes are per second", () => {
    const before = reading(1_000, 0, { diskReadBytes: 0, sentBytes: 100, receivedBytes: 900 });
    const after = reading(11_000, 5_000_000, { diskReadBytes: 40_960, sentBytes: 2_100, receivedBytes: 0 });
    // Half a second of CPU time a second, of two CPUs; the counter of what was received began anew.
    expect(instanceValues(before, after, promised)).toEqual({
      cpu: 25,
      memory: 256,
      "memory-percent": 50,
      "disk-read": 4_096,
      sent: 200,
    });
  });
});

test("a host", () => {
  const at = (cpuBusyMs: number, cpuTotalMs: number) => ({
    cpuBusyMs,
    cpuTotalMs,
    memoryUsedBytes: 1024 ** 3,
    memoryTotalBytes: 4 * 1024 ** 3,
    load: 1.25,
    diskUsedBytes: 1,
    diskTotalBytes: 3,
  });
  expect(hostValues(at(100, 1_000), at(600, 3_000))).toEqual({
    cpu: 25,
    memory: 1024,
    "memory-percent": 25,
    load: 1.25,
    "disk-percent": 33.33,
  });
  expect(hostValues(undefined, at(1, 2))).not.toHaveProperty("cpu");
});
