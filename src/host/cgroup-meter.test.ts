import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type CountingHierarchy, createCgroupMeter, ioOfThrottle } from "./cgroup-meter.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "strata-meter-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

const legacy = (...names: string[]): CountingHierarchy[] =>
  names.map((name) => ({ path: join(root, name), version: 1, controllers: name.split(",") }));

const unified = (controllers: string[]): CountingHierarchy[] => [{ path: root, version: 2, controllers }];

test("version 2: everything from one group", () => {
  put({
    "g/cpu.stat": "usage_usec 1234\nuser_usec 1000\n",
    "g/memory.current": "10000\n",
    "g/memory.stat": "anon 1\ninactive_file 4000\nactive_file 9\n",
    "g/io.stat":
      "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n7:1 rbytes=11 wbytes=0 rios=1 wios=0\n",
  });
  expect(createCgroupMeter(unified(["cpu", "memory", "pids", "io"]), "g")()).toEqual({
    cpuMicros: 1234,
    memoryBytes: 6000,
    diskReadBytes: 111,
    diskWrittenBytes: 7,
  });
});

test("version 2 without io: disks are not known", () => {
  put({ "g/cpu.stat": "usage_usec 5\n", "g/memory.current": "10\n", "g/memory.stat": "inactive_file 40\n" });
  expect(createCgroupMeter(unified(["cpu", "memory"]), "g")()).toEqual({ cpuMicros: 5, memoryBytes: 0 });
});

test("version 1: each controller in its hierarchy, nanoseconds of CPU, the totals of the sub-groups", () => {
  put({
    "cpu,cpuacct/g/cpuacct.usage": "5000000\n",
    "memory/g/memory.usage_in_bytes": "9000\n",
    "memory/g/memory.stat": "inactive_file 1\ntotal_inactive_file 3000\n",
    "blkio/g/blkio.throttle.io_service_bytes_recursive":
      "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n7:0 Read 1\n7:0 Write 2\nTotal 33\n",
  });
  const meter = createCgroupMeter(legacy("cpu,cpuacct", "memory", "blkio", "pids"), "g");
  expect(meter()).toEqual({ cpuMicros: 5000, memoryBytes: 6000, diskReadBytes: 11, diskWrittenBytes: 22 });
});

test("version 1 where the kernel does not count for the group: disks are not known", () => {
  expect(ioOfThrottle("Total 0\n")).toEqual({});
  expect(ioOfThrottle(undefined)).toEqual({});
});

test("a group that is not there (yet), or not any more", () => {
  const meter = createCgroupMeter(unified(["cpu", "memory"]), "g");
  expect(meter()).toBeUndefined();
  put({ "g/cpu.stat": "usage_usec 5\n", "g/memory.current": "10\n", "g/memory.stat": "" });
  expect(meter()).toEqual({ cpuMicros: 5, memoryBytes: 10 });
  rmSync(join(root, "g"), { recursive: true });
  expect(meter()).toBeUndefined();
});
