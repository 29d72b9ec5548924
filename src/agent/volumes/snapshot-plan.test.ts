import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { type Snapshot, snapshotKind } from "../../kinds/snapshot.ts";
import { rootVolume } from "../instances/testing.ts";
import { deletedAt } from "../networks/testing-resources.ts";
import { planSnapshot, rolledBack, type SnapshotWorld } from "./snapshot-plan.ts";

function snapshotOf(status: Partial<Snapshot["status"]>, deleted = false, rollbacks = 0): Snapshot {
  const { owner, ...metadata } = rootVolume().metadata;
  return {
    kind: "Snapshot",
    metadata: { ...metadata, name: "monday", finalizers: ["agent"], ...(deleted ? deletedAt : {}) },
    spec: { volume: "data", memory: false, rollbacks },
    status: { ...snapshotKind.initialStatus(), host: "alpha", volumeUid: "v", ...status },
  };
}

const now = Date.UTC(2026, 10, 29, 12);

const plan = (snapshot: Snapshot | undefined, source: boolean, rollback?: SnapshotWorld["rollback"]) =>
  planSnapshot({ hostName: "alpha", snapshot, source, rollback, memory: undefined }, now);

test.each<[string, Snapshot | undefined, boolean, string[], string | undefined]>([
  ["gone", undefined, true, [], undefined],
  ["of another host", snapshotOf({ host: "beta" }), true, [], undefined],
  ["asked for", snapshotOf({}), true, ["take"], "pending"],
  ["being copied", snapshotOf({ state: "copying" }), true, ["complete"], "copying"],
  ["being copied, its volume gone since", snapshotOf({ state: "copying" }), false, ["complete"], "copying"],
  [
    "being copied, deleted",
    snapshotOf({ state: "copying" }, true),
    true,
    ["remove-disk", "finalize"],
    undefined,
  ],
  ["cut off", snapshotOf({ state: "pending", cutOff: 1 }), true, ["take"], "pending"],
  ["taken", snapshotOf({ state: "ready" }), true, [], undefined],
  ["taken, its volume gone since", snapshotOf({ state: "ready" }), false, [], undefined],
  ["its volume gone before", snapshotOf({}), false, [], "failed"],
  ["deleted", snapshotOf({ state: "ready" }, true), true, ["remove-disk", "finalize"], undefined],
  ["deleted before it was taken", snapshotOf({}, true), true, ["remove-disk", "finalize"], undefined],
])("%s", (_name, snapshot, source, actions, state) => {
  const planned = plan(snapshot, source);
  expect(planned.actions.map(({ type }) => type)).toEqual(actions);
  expect(planned.status?.state).toBe(state);
});

test("goes back once nothing that uses the disks runs, and once for each time it was asked to", () => {
  const target = { disks: ["v"], instances: [] };
  const asked = snapshotOf({ state: "ready" }, false, 1);
  const waiting = plan(asked, true, { ...target, running: ["lms"] });
  expect(waiting.status).toMatchObject({
    state: "rolling-back",
    message: 'waiting for instance "lms" to stop',
  });
  expect(waiting).toMatchObject({ actions: [], recheckAfterMs: 250 });
  const idle = plan(snapshotOf({ state: "rolling-back" }, false, 1), true, { ...target, running: [] });
  expect(idle.actions).toMatchObject([{ type: "roll-back", target }]);
  expect(plan(snapshotOf({ state: "ready", rollbacks: 1 }, false, 1), true).actions).toEqual([]);
});

test("what is gone is not put back, and nobody waits for it", () => {
  const planned = plan(snapshotOf({ state: "rolling-back" }, false, 2), false);
  expect(planned.actions).toEqual([]);
  expect(planned.status).toMatchObject({
    state: "ready",
    rollbacks: 2,
    message: expect.stringContaining("gone"),
  });
});

const instanceLoads = "its instance starts anew, without the memory";

test.each<[string, SnapshotWorld["memory"], Partial<Snapshot["status"]>, number | undefined]>([
  ["waits", { state: "waiting", message: "" }, { memoryUse: "waiting", message: "so far" }, 1_000],
  ["is used", { state: "resumed", message: "" }, { memoryUse: "resumed", message: "" }, undefined],
  [
    "cannot be used",
    { state: "booted", message: "QEMU is another one" },
    { memoryUse: "booted", message: `${instanceLoads}: QEMU is another one` },
    undefined,
  ],
  [
    "is forgotten",
    undefined,
    { memoryUse: "booted", message: expect.stringContaining("something else was put back") as never },
    undefined,
  ],
])("memory that was put back %s", (_name, memory, status, recheckAfterMs) => {
  const snapshot = snapshotOf({ state: "ready", memoryBytes: 1, memoryUse: "waiting", message: "so far" });
  const world = { hostName: "alpha", snapshot, source: true, rollback: undefined, memory };
  const planned = planSnapshot(world, now);
  expect(planned.status).toMatchObject({ state: "ready", ...status });
  expect({ actions: planned.actions, recheckAfterMs: planned.recheckAfterMs }).toEqual({
    actions: [],
    recheckAfterMs,
  });
});

test("what became of the memory in an earlier rollback is forgotten with the next one", () => {
  const before = snapshotOf({ state: "rolling-back", memoryUse: "resumed" }, false, 2);
  expect(rolledBack(before)).not.toHaveProperty("memoryUse");
  const waiting = { memoryUse: "waiting", message: "with the next start" } as const;
  expect(rolledBack(before, "", waiting)).toMatchObject({ ...waiting, rollbacks: 2, state: "ready" });
});

test.each([
  [1, 0, undefined],
  [2, 0, 1_000],
  [2, 400, 600],
  [2, 1_000, undefined],
  [5, 0, 8_000],
  [50, 0, 300_000],
  [50, 3_600_000, undefined],
])(
  "cut off %i times, the last time %i ms after it was taken, it rests for %s ms",
  (cutOff, ageMs, restMs) => {
    const takenAt = toTimestamp(now - ageMs);
    const planned = plan(snapshotOf({ state: "pending", cutOff, takenAt }), true);
    expect(planned.recheckAfterMs).toBe(restMs);
    expect(planned.actions).toHaveLength(restMs === undefined ? 1 : 0);
  },
);

test("a clock that was set back makes nobody wait longer", () => {
  const takenAt = toTimestamp(now + 3_600_000);
  const planned = plan(snapshotOf({ state: "pending", cutOff: 2, takenAt }), true);
  expect(planned.recheckAfterMs).toBe(1_000);
});
