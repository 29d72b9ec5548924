import { expect, test } from "vitest";
import { type Snapshot, snapshotKind } from "../../kinds/snapshot.ts";
import { rootVolume } from "../instances/testing.ts";
import { deletedAt } from "../networks/testing-resources.ts";
import { planSnapshot } from "./snapshot-plan.ts";

function snapshotOf(status: Partial<Snapshot["status"]>, deleted = false): Snapshot {
  const { owner, ...metadata } = rootVolume().metadata;
  return {
    kind: "Snapshot",
    metadata: { ...metadata, name: "monday", finalizers: ["agent"], ...(deleted ? deletedAt : {}) },
    spec: { volume: "data" },
    status: { ...snapshotKind.initialStatus(), host: "alpha", volumeUid: "v", ...status },
  };
}

test.each<[string, Snapshot | undefined, boolean, string[], string | undefined]>([
  ["gone", undefined, true, [], undefined],
  ["of another host", snapshotOf({ host: "beta" }), true, [], undefined],
  ["asked for", snapshotOf({}), true, ["take"], undefined],
  ["taken", snapshotOf({ state: "ready" }), true, [], undefined],
  ["taken, its volume gone since", snapshotOf({ state: "ready" }), false, [], undefined],
  ["its volume gone before", snapshotOf({}), false, [], "failed"],
  ["deleted", snapshotOf({ state: "ready" }, true), true, ["remove-disk", "finalize"], undefined],
  ["deleted before it was taken", snapshotOf({}, true), true, ["remove-disk", "finalize"], undefined],
])("%s", (_name, snapshot, volume, actions, state) => {
  const plan = planSnapshot({ hostName: "alpha", snapshot, volume, guest: undefined });
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
});
