import { describe, expect, test } from "vitest";
import type { Address } from "../../kinds/address.ts";
import type { PublishedPort } from "../../kinds/published-port.ts";
import { instanceOf } from "../instances/testing.ts";
import { addressOf, deletedAt, portOf } from "../networks/testing-resources.ts";
import { type PublishWorld, planAddress, planPort } from "./plan.ts";

const web = instanceOf();
const leaving = { ...web, metadata: { ...web.metadata, ...deletedAt } };
const publication = { name: "tcp 80", leadsTo: "10.0.0.2 80" };
const port = portOf("http", { port: 80, instance: "web" });
const address = addressOf("front", { instance: "web" }, { state: "binding" });
const nobodys = addressOf("front", {}, { state: "bound" });

function worldOf<R>(resource: R, change: Partial<PublishWorld<R>>): PublishWorld<R> {
  return { resource, instance: web, publication, inForce: false, ...change };
}

describe("ports", () => {
  test.each<[string, Partial<PublishWorld<PublishedPort>>, string[], string | undefined]>([
    ["gone", { resource: undefined }, [], undefined],
    ["wanted", {}, ["apply"], "pending"],
    ["in force", { inForce: true }, [], "active"],
    ["of an instance elsewhere", { instance: undefined, publication: undefined }, [], undefined],
    ["of an instance without an address", { publication: undefined }, [], undefined],
    ["of an instance that goes", { instance: leaving }, [], undefined],
    ["being deleted", { resource: { ...port, metadata: { ...port.metadata, ...deletedAt } } }, [], undefined],
  ])("%s", (_name, change, actions, state) => {
    const plan = planPort(worldOf(port, change));
    expect(plan.actions.map(({ type }) => type)).toEqual(actions);
    expect(plan.status?.state).toBe(state);
  });
});

describe("addresses", () => {
  test.each<[string, Partial<PublishWorld<Address>>, string[], string | undefined]>([
    ["gone", { resource: undefined }, [], undefined],
    ["wanted", {}, ["apply"], "binding"],
    ["in force", { inForce: true }, [], "bound"],
    ["nobody's", { resource: nobodys, instance: undefined, publication: undefined }, [], "free"],
    ["of an instance elsewhere", { instance: undefined, publication: undefined }, [], undefined],
    ["of an instance that goes", { instance: leaving }, [], undefined],
  ])("%s", (_name, change, actions, state) => {
    const plan = planAddress(worldOf(address, change));
    expect(plan.actions.map(({ type }) => type)).toEqual(actions);
    expect(plan.status?.state).toBe(state);
  });
});
