import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { now, rootVolume } from "../instances/testing.ts";
import { planVolume, type VolumeWorld } from "./plan.ts";

const volume = rootVolume();
const leaving = {
  ...volume,
  metadata: { ...volume.metadata, deletedAt: toTimestamp(now), finalizers: ["agent"] },
};

test.each<[string, VolumeWorld, string[], string | undefined]>([
  ["gone", { volume: undefined, owner: "absent", guest: false, waiting: false }, [], undefined],
  ["before its instance's start", { volume, owner: "known", guest: false, waiting: false }, [], "pending"],
  ["of an instance that was made", { volume, owner: "made", guest: false, waiting: false }, [], "ready"],
  [
    "without an instance, and not deleted",
    { volume, owner: "absent", guest: false, waiting: false },
    [],
    "pending",
  ],
  [
    "going with its instance",
    { volume: leaving, owner: "made", guest: false, waiting: false },
    [],
    undefined,
  ],
  [
    "left by its instance",
    { volume: leaving, owner: "absent", guest: false, waiting: false },
    ["remove-disk", "finalize"],
    undefined,
  ],
  ["left, but in use", { volume: leaving, owner: "absent", guest: true, waiting: false }, [], undefined],
])("%s", (_name, world, actions, state) => {
  const plan = planVolume(world);
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
});
