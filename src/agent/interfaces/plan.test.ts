import { expect, test } from "vitest";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import { handle, instanceOf } from "../instances/testing.ts";
import { deletedAt, interfaceOf } from "../networks/testing-resources.ts";
import { type CurrentInstance, type InterfaceWorld, planInterface } from "./plan.ts";

const web = instanceOf();
const leaving = { ...web, metadata: { ...web.metadata, ...deletedAt } };
const plugged: Partial<NetworkInterface["status"]> = { host: "alpha", instance: "web", device: 1 };

function holder(change: Partial<CurrentInstance> = {}): CurrentInstance {
  return {
    instance: web,
    guest: "running",
    inGuest: false,
    reach: { driver: "fake", handle, canPlug: true },
    ...change,
  };
}

interface Row {
  name: string;
  /** Of spec. */
  instance?: string;
  status?: Partial<NetworkInterface["status"]>;
  world?: Partial<InterfaceWorld>;
  actions?: string[];
  state?: NetworkInterface["status"]["state"] | undefined;
  message?: RegExp;
}

const plain = { driver: "plain", handle, canPlug: false };
const wanted = { wanted: web };

test.each<Row>([
  { name: "nobody's" },
  { name: "wanted for an instance that is not here", instance: "web" },
  { name: "wanted for one here: recorded first", instance: "web", world: wanted, actions: ["claim"] },
  { name: "wanted for one that goes", instance: "web", world: { wanted: leaving } },
  {
    name: "another host's",
    instance: "web",
    status: { ...plugged, host: "beta", state: "attaching" },
    world: wanted,
  },
  {
    name: "recorded: plugged in",
    instance: "web",
    status: { ...plugged, state: "attaching" },
    world: { wanted: web, current: holder() },
    actions: ["plug"],
    state: "attaching",
  },
  {
    name: "in the guest",
    instance: "web",
    status: { ...plugged, state: "attaching" },
    world: { wanted: web, current: holder({ inGuest: true }) },
    state: "attached",
    message: /^$/,
  },
  {
    name: "its guest does not run",
    instance: "web",
    status: { ...plugged, state: "attaching" },
    world: { wanted: web, current: holder({ guest: "idle", reach: undefined }) },
    state: "attached",
    message: /when the instance "web" starts/,
  },
  {
    name: "attached before the guest started: a part of it",
    instance: "web",
    status: { ...plugged, state: "attached" },
    world: { wanted: web, current: holder() },
    state: "attached",
    message: /^$/,
  },
  {
    name: "its guest starts: nobody touches it",
    instance: "web",
    status: { ...plugged, state: "attaching" },
    world: { wanted: web, current: holder({ guest: "starting", reach: undefined }) },
    state: "attaching",
  },
  {
    name: "a driver that cannot plug",
    instance: "web",
    status: { ...plugged, state: "attaching" },
    world: { wanted: web, current: holder({ reach: plain }) },
    state: "attaching",
    message: /driver plain cannot plug .* restart the instance "web"/,
  },
  {
    name: "its instance is being deleted: as it is until that is gone",
    instance: "web",
    status: { ...plugged, state: "attached" },
    world: { wanted: leaving, current: holder({ instance: leaving }) },
  },
  {
    name: "taken away from a running guest",
    status: { ...plugged, state: "attached" },
    world: { current: holder() },
    actions: ["unplug", "release"],
    state: "detaching",
  },
  {
    name: "taken away from a guest that does not run",
    status: { ...plugged, state: "attached" },
    world: { current: holder({ guest: "idle" }) },
    actions: ["release"],
    state: "detaching",
  },
  {
    name: "taken away while the guest starts",
    status: { ...plugged, state: "attached" },
    world: { current: holder({ guest: "starting", reach: undefined }) },
    state: "detaching",
    message: /once its instance has started/,
  },
  {
    name: "taken away, and the driver cannot",
    status: { ...plugged, state: "attached" },
    world: { current: holder({ reach: plain }) },
    state: "detaching",
    message: /stop or restart the instance "web"/,
  },
  {
    name: "taken away before a driver that cannot had it",
    status: { ...plugged, state: "attaching" },
    world: { current: holder({ reach: plain }) },
    actions: ["release"],
    state: "detaching",
  },
  {
    name: "its instance is gone",
    instance: "web",
    status: { ...plugged, state: "attached" },
    actions: ["release"],
    state: "detaching",
  },
  {
    name: "to another instance: leaves the first one first",
    instance: "db",
    status: { ...plugged, state: "attached" },
    world: { wanted: instanceOf({ metadata: { name: "db" } }), current: holder() },
    actions: ["unplug", "release"],
    state: "detaching",
  },
  {
    name: "has left",
    status: { ...plugged, state: "detaching" },
    world: { released: true },
    state: "available",
  },
  {
    name: "has left, and another one waits",
    instance: "db",
    status: { ...plugged, state: "detaching" },
    world: { released: true, wanted: instanceOf({ metadata: { name: "db" } }) },
    actions: ["claim"],
    state: "available",
  },
])("$name", ({ instance, status, world, actions = [], state, message }) => {
  const card = interfaceOf("nic", instance === undefined ? {} : { instance }, status);
  const base = { hostName: "alpha", card, wanted: undefined, current: undefined, released: false };
  const plan = planInterface({ ...base, ...world });
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  expect(plan.status?.state).toBe(state);
  if (message) expect(plan.status?.message).toMatch(message);
  if (state === "available") expect(plan.status).not.toHaveProperty("instance");
});

test("gone: nothing", () => {
  const world = {
    hostName: "alpha",
    card: undefined,
    wanted: undefined,
    current: undefined,
    released: false,
  };
  expect(planInterface(world)).toEqual({ status: undefined, actions: [] });
});
