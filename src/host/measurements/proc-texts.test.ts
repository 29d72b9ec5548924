import { expect, test } from "vitest";
import { cpuOf, diskOf, guestGroup, loadOf, memoryOf, trafficOf } from "./proc-texts.ts";

const uid = "0123456789abcdef";
const id = "a1".repeat(32);

test.each<[string, string, string | undefined]>([
  ["unified", `0::/strata/${uid}/payload/init.scope\n`, `strata/${uid}`],
  ["legacy", `9:name=systemd:/init\n4:memory:/strata/${uid}/payload\n`, `strata/${uid}`],
  ["Docker with cgroupfs", `4:memory:/docker/${id}\n`, `docker/${id}`],
  ["Docker with systemd", `0::/system.slice/docker-${id}.scope/init\n`, `system.slice/docker-${id}.scope`],
  ["another guest's process", "0::/strata/fedcba9876543210/payload\n", undefined],
  ["the host's", "0::/\n", undefined],
  ["gone", "", undefined],
])("the group of a guest, %s", (_name, text, group) => {
  expect(guestGroup(text, uid)).toBe(group);
});

test("traffic of the interfaces that are wanted", () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0: 123456     100    0    0    0     0          0         0   654321     200    0    0    0     0       0          0
 eth1:7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0
`;
  const all = trafficOf(text, (name) => name !== "lo");
  expect(all).toEqual({ receivedBytes: 123_463, sentBytes: 654_330 });
  expect(trafficOf(text, () => false)).toEqual({ receivedBytes: 0, sentBytes: 0 });
});

test("the host's texts", () => {
  expect(cpuOf("cpu  100 10 50 800 40 5 5 10 99 9\ncpu0 1 1 1 1\n")).toEqual({
    cpuBusyMs: 1_800,
    cpuTotalMs: 10_200,
  });
  expect(memoryOf("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n")).toEqual({
    memoryUsedBytes: 600 * 1024,
    memoryTotalBytes: 1000 * 1024,
  });
  expect(loadOf("0.42 0.36 0.30 1/123 4567\n")).toBe(0.42);
  expect(diskOf("rchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n")).toEqual({
    diskReadBytes: 4096,
    diskWrittenBytes: 8192,
  });
});
