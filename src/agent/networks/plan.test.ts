import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { NetworkRequest } from "../../host/networks/networks.ts";
import { now, readyNetwork, readySubnet } from "../instances/testing.ts";
import { type NetworkWorld, planNetwork } from "./plan.ts";
import { networkRequest } from "./request.ts";

const base = readyNetwork();
const deleted = {
  ...base,
  metadata: { ...base.metadata, deletedAt: toTimestamp(now), finalizers: ["agent"] },
};
const request = networkRequest({ network: base, subnets: [readySubnet()], routeTables: [], peerings: [] });
const bare: NetworkRequest | undefined = request && { ...request, subnets: [] };
const worldOf = (change: Partial<NetworkWorld>): NetworkWorld => ({
  key: "/networks/default/default",
  hostName: "alpha",
  network: base,
  request,
  users: [{ name: "web", subnet: "default" }],
  made: "no",
  hostAddress: "100.64.0.2",
  inForce: false,
  leftBehind: undefined,
  ...change,
});

test.each<[string, Partial<NetworkWorld>, string[], string | undefined]>([
  ["needed: made", {}, ["ensure", "apply"], "pending"],
  ["made, and its cards are not in force", { made: "yes" }, ["apply"], "pending"],
  ["made: told", { made: "yes", inForce: true }, [], "ready"],
  [
    "changed: made so, though all was in force",
    { made: "changed", inForce: true },
    ["ensure", "apply"],
    "pending",
  ],
  ["not needed: left as it is", { users: [] }, [], "pending"],
  ["no longer needed: the last cards go", { users: [], made: "yes" }, ["apply"], "pending"],
  ["without a range: waits", { request: undefined }, [], "pending"],
  ["without the subnet of a card: waits", { request: bare }, [], "pending"],
  ["the subnet of a card is gone: stays as it is", { request: bare, made: "changed" }, ["apply"], "pending"],
  ["deleted with users: stays", { network: deleted, made: "yes", inForce: true }, [], "pending"],
  ["deleted, users leave", { network: deleted, made: "yes" }, ["apply"], "pending"],
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

test("it tells from where on this host its guests are reached, beside what others tell", () => {
  const network = { ...base, status: { ...base.status, hostAddresses: { beta: "100.64.0.8" } } };
  const { status } = planNetwork(worldOf({ network, made: "yes", inForce: true }));
  expect(status?.hostAddresses).toEqual({ alpha: "100.64.0.2", beta: "100.64.0.8" });
});

test("a wait names what it waits for", () => {
  expect(planNetwork(worldOf({ network: deleted })).status?.message).toContain("(web)");
  expect(planNetwork(worldOf({ request: bare })).status?.message).toContain('"default"');
});
