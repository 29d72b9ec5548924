import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { instanceOf, now, readyNetwork } from "../instances/testing.ts";
import { type NetworkWorld, planNetwork } from "./plan.ts";

const base = readyNetwork();
const deleted = {
  ...base,
  metadata: { ...base.metadata, deletedAt: toTimestamp(now), finalizers: ["agent"] },
};
const user = instanceOf();
const worldOf = (change: Partial<NetworkWorld>): NetworkWorld => ({
  key: "/networks/default/default",
  network: base,
  users: [user],
  made: false,
  leftBehind: undefined,
  ...change,
});

test.each<[string, Partial<NetworkWorld>, string[], string | undefined]>([
  ["needed: made", {}, ["ensure"], "pending"],
  ["made: told", { made: true }, [], "ready"],
  ["not needed: left as it is", { users: [] }, [], "pending"],
  [
    "without a range: waits",
    { network: { ...base, status: { ...base.status, cidr: undefined } } },
    [],
    "pending",
  ],
  ["deleted with users: stays", { network: deleted, made: true }, [], "pending"],
  ["deleted: removed", { network: deleted, users: [] }, ["remove", "finalize"], undefined],
  [
    "deleted, and nothing more to do here",
    { network: { ...deleted, metadata: { ...deleted.metadata, finalizers: [] } }, users: [] },
    [],
    undefined,
  ],
  ["gone, never made here", { network: undefined, users: [] }, [], undefined],
  ["gone, made here", { network: undefined, users: [], leftBehind: "x" }, ["remove"], undefined],
  ["gone, but instances are not", { network: undefined, leftBehind: "x" }, [], undefined],
  [
    "an order older than one already followed",
    { network: { ...base, status: { ...base.status, observedGeneration: 2 } } },
    [],
    undefined,
  ],
])("%s", (_name, change, actions, state) => {
  const plan = planNetwork(worldOf(change));
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
});

test("a deletion that waits names those it waits for", () => {
  expect(planNetwork(worldOf({ network: deleted })).status?.message).toContain("(web)");
});
