import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createKernelMeasurements } from "./kernel-measurements.ts";

const uid = "0123456789abcdef";
let proc: string;
const opened: string[] = [];
const cgroups = {
  meter: (group: string) => {
    opened.push(group);
    return () => ({ cpuMicros: 5, memoryBytes: 6, diskReadBytes: 7 });
  },
};
const measurements = () => createKernelMeasurements({ cgroups, stateDir: proc, proc });

function put(path: string, text: string): void {
  mkdirSync(dirname(join(proc, path)), { recursive: true });
  writeFileSync(join(proc, path), text);
}

beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), "strata-proc-"));
  opened.length = 0;
  put("42/cgroup", `0::/strata/${uid}/payload\n`);
  put("42/net/dev", "lo: 1 0 0 0 0 0 0 0 1\neth0: 10 0 0 0 0 0 0 0 20\ntap1: 30 0 0 0 0 0 0 0 40\n");
  put("42/io", "read_bytes: 100\nwrite_bytes: 200\n");
});

afterEach(() => rmSync(proc, { recursive: true }));

test("a container: its own interfaces, disks of its group", () => {
  const meter = measurements().open({ uid, type: "container", pid: 42, ports: [] });
  expect(meter?.()).toEqual({
    cpuMicros: 5,
    memoryBytes: 6,
    diskReadBytes: 7,
    receivedBytes: 40,
    sentBytes: 60,
  });
  expect(opened).toEqual([`strata/${uid}`]);
});

test("a VM: its ports, the other way round, and its process's disks", () => {
  const meter = measurements().open({ uid, type: "vm", pid: 42, ports: ["tap1"] });
  expect(meter?.()).toEqual({
    cpuMicros: 5,
    memoryBytes: 6,
    diskReadBytes: 100,
    diskWrittenBytes: 200,
    receivedBytes: 40,
    sentBytes: 30,
  });
});

test("a process that is another's, or gone, is not measured", () => {
  const place = { uid, type: "vm", ports: [] } as const;
  expect(measurements().open({ ...place, pid: 43 })).toBeUndefined();
  put("44/cgroup", "0::/strata/fedcba9876543210\n");
  expect(measurements().open({ ...place, pid: 44 })).toBeUndefined();
});
