import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { type Fingerprint, type Host, hostKind } from "../../kinds/host.ts";
import { now } from "../instances/testing.ts";
import { hostMemoryMib, planHost } from "./plan.ts";

const machine = { cpus: 4, memoryMib: 20_000, facts: { kernel: "6.1" } };
const disk = { totalMib: 100_000, freeMib: 50_123 };
const fingerprint: Fingerprint = {
  available: true,
  message: "",
  version: "1",
  types: ["container"],
  abilities: [],
  facts: {},
};
const host: Host = {
  kind: "Host",
  metadata: {
    name: "alpha",
    uid: "1".repeat(16) as Host["metadata"]["uid"],
    revision: 1,
    generation: 1,
    labels: {},
    createdAt: toTimestamp(now),
    finalizers: [],
  },
  spec: hostKind.spec.parse({}),
  status: hostKind.initialStatus(),
};

test("an unknown host registers", () => {
  const plan = planHost({ host: undefined, machine, disk, fingerprints: [] });
  expect(plan.actions).toEqual([{ type: "register" }]);
});

test("it tells its size, less what it keeps, and its drivers in the order of preference", () => {
  const fingerprints = [["qemu", fingerprint] as const, ["lxc", fingerprint] as const];
  const { status } = planHost({ host, machine, disk, fingerprints });
  expect(status).toMatchObject({
    state: "ready",
    capacity: { cpus: 4, memoryMib: 20_000, diskMib: 100_000 },
    allocatable: { cpus: 4, memoryMib: 18_000, diskMib: 49_152 },
    facts: { kernel: "6.1" },
  });
  expect(Object.keys(status?.drivers ?? {})).toEqual(["qemu", "lxc"]);
  expect(hostKind.status.safeParse(status).success).toBe(true);
});

test("a little more written to the disk is no news", () => {
  const statusAt = (freeMib: number) =>
    planHost({ host, machine, disk: { ...disk, freeMib }, fingerprints: [] }).status;
  expect(statusAt(50_000)).toEqual(statusAt(49_500));
});

test.each([
  [1_024, 512],
  [8_192, 819],
  [1_000_000, 4_096],
])("of %i MiB, the host keeps %i", (memoryMib, kept) => {
  expect(hostMemoryMib(memoryMib)).toBe(kept);
});
