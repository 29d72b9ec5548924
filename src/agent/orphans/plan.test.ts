import { expect, test } from "vitest";
import {
  type Found,
  imageGraceMs,
  isStray,
  type Known,
  orphanCheckMs,
  orphanGraceMs,
  planOrphans,
  strayId,
} from "./plan.ts";

const guest: Found = { type: "guest", driver: "lxc", uid: "a", handle: { id: 1 } };
const disk: Found = { type: "disk", uid: "a" };
const network: Found = { type: "network", uid: "a" };
const image: Found = { type: "image", uid: "sha256:a" };
const nothing: Known = {
  instances: new Map(),
  volumes: new Set(),
  networks: new Set(),
  balancers: new Set(),
  digests: new Set(),
};

test.each<[string, Found, Partial<Known>, boolean]>([
  ["a guest without an instance", guest, {}, true],
  ["a guest of an instance", guest, { instances: new Map([["a", "lxc"]]) }, false],
  ["a guest that is not recorded yet", guest, { instances: new Map([["a", undefined]]) }, false],
  ["a guest of another driver than the recorded one", guest, { instances: new Map([["a", "qemu"]]) }, true],
  ["a disk without a volume", disk, { instances: new Map([["a", "lxc"]]) }, true],
  ["a disk of a volume", disk, { volumes: new Set(["a"]) }, false],
  ["a network without a resource", network, { volumes: new Set(["a"]) }, true],
  ["an image that nothing refers to", image, {}, true],
  ["an image in use", image, { digests: new Set(["sha256:a"]) }, false],
  ["a balancer of no resource", { type: "balancer", uid: "a" }, {}, true],
  ["a balancer of a resource", { type: "balancer", uid: "a" }, { balancers: new Set(["a"]) }, false],
  ["a network of a resource", network, { networks: new Set(["a"]) }, false],
])("%s", (_name, found, known, stray) => {
  expect(isStray(found, { ...nothing, ...known })).toBe(stray);
});

test("removed after the grace and not before, guests first", () => {
  const strays = [network, disk, guest].map((found) => ({ found, since: 1_000 }));
  const early = planOrphans({ strays }, 1_000 + orphanGraceMs - 1);
  expect(early).toEqual({ status: undefined, actions: [], recheckAfterMs: orphanGraceMs });
  const { actions } = planOrphans({ strays }, 1_000 + orphanGraceMs);
  expect(actions).toEqual([{ type: "remove", orphans: [guest, disk, network] }]);
});

test("an image is kept for a day, and goes after all others", () => {
  const strays = [image, disk].map((found) => ({ found, since: 0 }));
  expect(planOrphans({ strays }, orphanGraceMs).actions).toEqual([{ type: "remove", orphans: [disk] }]);
  expect(planOrphans({ strays }, imageGraceMs).actions).toEqual([{ type: "remove", orphans: [disk, image] }]);
  const rest = planOrphans({ strays: [{ found: image, since: 0 }] }, orphanGraceMs);
  expect(rest).toMatchObject({ actions: [], recheckAfterMs: orphanCheckMs });
});

test("a handle that changes does not make another stray", () => {
  expect(strayId({ ...guest, handle: { id: 2 } })).toBe(strayId(guest));
  expect(strayId(disk)).not.toBe(strayId(network));
});
