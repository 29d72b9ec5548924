import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { StoredImage } from "../../host/images/image-store.ts";
import type { Image } from "../../kinds/image.ts";
import { digest, now, readyImage } from "../instances/testing.ts";
import { statusPatch } from "../status-patch.ts";
import { type ImageWorld, planImage } from "./plan.ts";

const stored: StoredImage = {
  digest: `sha256:${"b".repeat(64)}`,
  sizeBytes: 5,
  os: "Debian",
  types: ["container"],
  limitation: "no kernel",
  remark: "runs: server",
};
const imageOf = (status: Partial<Image["status"]>, metadata: Partial<Image["metadata"]> = {}): Image => {
  const image = readyImage({ observedGeneration: 1, ...status });
  return { ...image, metadata: { ...image.metadata, finalizers: ["agent"], ...metadata } };
};
const worldOf = (image: Image | undefined, change: Partial<ImageWorld> = {}): ImageWorld => ({
  hostName: "alpha",
  image,
  present: true,
  made: undefined,
  ...change,
});
const deleted = { deletedAt: toTimestamp(now) };

test.each<[string, ImageWorld, string[], string | undefined]>([
  ["none", worldOf(undefined), [], undefined],
  ["another host's", worldOf(imageOf({ host: "beta", state: "pending" })), [], undefined],
  [
    "new",
    worldOf(imageOf({ state: "pending", digest: undefined, observedGeneration: 0 })),
    ["make"],
    "building",
  ],
  ["interrupted", worldOf(imageOf({ state: "building", digest: undefined })), ["make"], "building"],
  ["made", worldOf(imageOf({ state: "building" }), { made: stored }), [], "ready"],
  ["ready", worldOf(imageOf({})), [], "ready"],
  ["ready, but gone from the host", worldOf(imageOf({}), { present: false }), ["make"], "building"],
  ["failed", worldOf(imageOf({ state: "failed" })), [], "failed"],
  ["failed, and changed", worldOf(imageOf({ state: "failed" }, { generation: 2 })), ["make"], "building"],
  [
    "older than what was followed",
    worldOf(imageOf({ state: "pending", observedGeneration: 9 })),
    [],
    undefined,
  ],
  ["deleted", worldOf(imageOf({}, deleted)), ["finalize"], undefined],
  [
    "deleted before it was made",
    worldOf(imageOf({ state: "building", digest: undefined }, deleted)),
    ["finalize"],
    undefined,
  ],
  ["deleted, finalizer gone", worldOf(imageOf({}, { ...deleted, finalizers: [] })), [], undefined],
])("%s", (_name, world, actions, state) => {
  const plan = planImage(world, now);
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
});

test("what was made is told in full, and progress is over", () => {
  const image = imageOf({ state: "building", digest: undefined, progress: { step: "x" } });
  const { status } = planImage(worldOf(image, { made: stored }), now);
  expect(status).toMatchObject({
    ...{ digest: stored.digest, os: "Debian", types: ["container"] },
    message: "no kernel; runs: server",
  });
  expect(statusPatch(image.status, status ?? {})).toMatchObject({ progress: null });
});

test("ready and present is no change", () => {
  const image = imageOf({ digest });
  expect(statusPatch(image.status, planImage(worldOf(image), now).status ?? {})).toBeUndefined();
});
