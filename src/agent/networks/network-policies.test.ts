import { beforeEach, describe, expect, test } from "vitest";
import { FakeHost } from "../../../sim/fake-host.ts";
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { silentLogger } from "../../core/logger.ts";
import { settle, VirtualClock } from "../../core/virtual-clock.ts";
import type { NetworkPolicy } from "../../host/networks/networks.ts";
import type { Instance } from "../../kinds/instance.ts";
import { instanceOf } from "../instances/testing.ts";
import { createViews } from "../views.ts";
import { requestFor } from "./contents.ts";
import { NetworkAttachments } from "./network-attachments.ts";
import { NetworkPolicies } from "./network-policies.ts";
import { addressOf, groupOf, interfaceOf, networkOf, portOf, subnetOf } from "./testing-resources.ts";

const key = "/networks/default/blue";
const never = new AbortController().signal;
let revision = 0;

function bench() {
  const clock = new VirtualClock();
  const host = new FakeHost("alpha", clock);
  const views = createViews({ client: {} as Client, clock, logger: silentLogger, hostName: "alpha" });
  const { networks } = host;
  const attachments = new NetworkAttachments(networks);
  const policies = new NetworkPolicies({ views, networks, attachments, signal: never });
  const applied: NetworkPolicy[] = [];
  host.onPolicy = (_network, policy) => applied.push(policy);
  const put = <R extends { metadata: { revision: number } }>(
    view: { keyOf(one: R): string; put(key: string, one: R): void },
    one: R,
  ) => view.put(view.keyOf(one), { ...one, metadata: { ...one.metadata, revision: ++revision } });
  const blue = networkOf("blue", "b");
  put(views.networks, blue);
  put(views.subnets, subnetOf("one", 0));
  put(views.securityGroups, groupOf("default"));
  const ensure = async () => {
    const request = requestFor(views, blue);
    if (request) await attachments.attach(request, never);
  };
  return { clock, host, views, policies, attachments, applied, put, ensure, blue };
}

function memberNo(index: number, change: Parameters<typeof instanceOf>[0] = {}): Instance {
  const instance = instanceOf({
    ...change,
    spec: { network: "blue", ...change.spec },
    metadata: { name: `i${index}`, uid: `i${index}`.padEnd(16, "x") as Instance["metadata"]["uid"] },
  });
  const hex = index.toString(16).padStart(4, "0");
  const macAddress = `02:00:00:00:${hex.slice(0, 2)}:${hex.slice(2)}`;
  const ipAddress = `10.0.${index >> 8}.${index & 255}`;
  const nic = { network: "blue", subnet: "one", macAddress, ipAddress, ipv6Address: `fd00::${hex}` };
  return { ...instance, status: { ...instance.status, nic } };
}

let at: ReturnType<typeof bench>;
beforeEach(async () => {
  at = bench();
  await at.ensure();
});

test("what is known at the call is in force afterwards; what is known costs nothing", async () => {
  const { put, views, policies, applied } = at;
  put(views.instances, memberNo(1));
  await policies.apply(key);
  expect(applied[0]?.cards.map(({ hostname }) => hostname)).toEqual(["i1"]);
  expect(policies.isInForce(key)).toBe(true);
  await policies.apply(key);
  expect(applied).toHaveLength(1);
  put(views.instances, memberNo(2));
  expect(policies.isInForce(key)).toBe(false);
  await policies.apply(key);
  expect(applied[1]?.cards).toHaveLength(2);
});

test("changes that come while one is carried out go together", async () => {
  const { put, views, policies, applied, host, clock } = at;
  host.policyMs = 50;
  const calls: Promise<void>[] = [];
  for (let index = 1; index <= 30; index++) {
    put(views.instances, memberNo(index));
    calls.push(policies.apply(key));
    await settle();
  }
  for (let step = 0; step < 20; step++) {
    await clock.advance(10);
    await settle();
  }
  await Promise.all(calls);
  expect(applied.map(({ cards }) => cards.length)).toEqual([1, 30]);
});

test("a failure is the caller's, and nothing counts as in force", async () => {
  const { put, views, policies, host } = at;
  host.badPolicies = 1;
  put(views.instances, memberNo(1));
  await expect(policies.apply(key)).rejects.toThrow("told to fail");
  expect(policies.isInForce(key)).toBe(false);
  await policies.apply(key);
  expect(policies.isInForce(key)).toBe(true);
});

test("a doubt that comes while one is carried out is not lost", async () => {
  const { put, views, policies, host, clock, applied } = at;
  put(views.instances, memberNo(1));
  host.policyMs = 50;
  const first = policies.apply(key);
  await settle();
  policies.doubt(key);
  await clock.advance(50);
  await first;
  expect(policies.isInForce(key)).toBe(false);
  const second = policies.apply(key);
  await settle();
  await clock.advance(50);
  await second;
  expect(applied).toHaveLength(2);
});

describe("hints", () => {
  async function hintsOf(action: () => void): Promise<string[]> {
    const abort = new AbortController();
    const hinted: string[] = [];
    const reading = (async () => {
      for await (const one of at.policies.hints.keys(abort.signal)) hinted.push(one);
    })();
    await settle();
    action();
    await settle();
    abort.abort();
    await reading;
    return hinted;
  }

  beforeEach(async () => {
    at.put(at.views.instances, memberNo(1));
    await at.policies.apply(key);
  });

  test.each<[string, () => void, boolean]>([
    [
      "a new state of an instance",
      () => at.put(at.views.instances, memberNo(1, { status: { state: "running" } })),
      false,
    ],
    [
      "other groups of an instance",
      () => at.put(at.views.instances, withGeneration(memberNo(1, { spec: { securityGroups: [] } }))),
      true,
    ],
    [
      "its restart",
      () => at.put(at.views.instances, withGeneration(memberNo(1, { spec: { restarts: 1 } }))),
      false,
    ],
    ["another instance", () => at.put(at.views.instances, memberNo(2)), true],
    ["an instance that is gone", () => at.views.instances.delete("/instances/default/i1"), true],
    [
      "rules of a group that is used",
      () => at.put(at.views.securityGroups, withGeneration(groupOf("default"))),
      true,
    ],
    ["rules of one that is not", () => at.put(at.views.securityGroups, groupOf("idle")), false],
    [
      "a port of an instance in it",
      () => at.put(at.views.publishedPorts, portOf("http", { port: 80, instance: "i1" })),
      true,
    ],
    [
      "a port of another",
      () => at.put(at.views.publishedPorts, portOf("http", { port: 80, instance: "far" })),
      false,
    ],
    ["a free card", () => at.put(at.views.interfaces, interfaceOf("nic")), false],
    [
      "a card that is plugged in",
      () => at.put(at.views.interfaces, interfaceOf("nic", {}, { instance: "i1", host: "alpha" })),
      true,
    ],
    ["another network", () => at.put(at.views.networks, networkOf("red", "r")), false],
  ])("%s", async (_name, action, hinted) => {
    expect(await hintsOf(action)).toEqual(hinted ? [key] : []);
  });
});

function withGeneration<R extends { metadata: { generation: number } }>(resource: R): R {
  return { ...resource, metadata: { ...resource.metadata, generation: 2 } };
}

describe("what is released", () => {
  test("stays out although the API still tells of it", async () => {
    const { put, views, policies, host } = at;
    const member = memberNo(1);
    put(views.instances, member);
    await policies.apply(key);
    await policies.releaseInstance(member, never);
    expect(host.cards()).toEqual([]);
    put(views.instances, { ...member, spec: { ...member.spec, restarts: 1 } });
    put(views.instances, memberNo(2));
    await policies.apply(key);
    expect(host.cards().map(({ card }) => card.hostname)).toEqual(["i2"]);
  });

  test("comes back under the same name as somebody else", async () => {
    const { put, views, policies, host } = at;
    const member = memberNo(1);
    put(views.instances, member);
    await policies.releaseInstance(member, never);
    put(views.instances, { ...member, metadata: { ...member.metadata, uid: "z".repeat(16) as never } });
    await policies.apply(key);
    expect(host.cards().map(({ card }) => card.uid)).toEqual(["z".repeat(16)]);
  });

  test("takes its further cards along", async () => {
    const { put, views, policies, host } = at;
    const member = memberNo(1);
    put(views.instances, member);
    put(views.interfaces, interfaceOf("nic", { instance: "i1" }, { instance: "i1", host: "alpha" }));
    await policies.apply(key);
    expect(host.cards()).toHaveLength(2);
    await policies.releaseInstance(member, never);
    expect(host.cards()).toEqual([]);
  });

  test("is taken out of a network that only the process before has made", async () => {
    const { put, views, policies, host, attachments, blue } = at;
    put(views.instances, memberNo(1));
    await policies.apply(key);
    attachments.doubt(blue.metadata.uid);
    policies.doubt(key);
    await policies.releaseInstance(memberNo(1), never);
    expect(host.cards()).toEqual([]);
  });

  test("does not wait for a network that the host refuses", async () => {
    const { put, views, policies, host, attachments, blue } = at;
    put(views.instances, memberNo(1));
    await policies.apply(key);
    attachments.doubt(blue.metadata.uid);
    host.networks.ensure = async () => {
      throw new StrataError("Conflict", "the host routes 10.0.0.0/16 elsewhere");
    };
    await policies.releaseInstance(memberNo(1), never);
    expect(policies.isInForce(key)).toBe(false);
  });

  test("needs no network where there is none", async () => {
    const { put, views, policies, host, attachments, blue } = at;
    put(views.instances, memberNo(1));
    host.bridges.clear();
    attachments.forget(blue.metadata.uid);
    await policies.releaseInstance(memberNo(1), never);
    expect(host.bridges.size).toBe(0);
  });
});

describe("an address that moves between networks", () => {
  const red = networkOf("red", "r");
  const redKey = "/networks/default/red";
  const inForce = () =>
    [...at.host.bridges].flatMap(([uid, { policy }]) =>
      policy.addresses.map(({ ipAddress }) => [uid, ipAddress]),
    );

  beforeEach(async () => {
    at.put(at.views.networks, red);
    const request = requestFor(at.views, red);
    if (request) await at.attachments.attach(request, never);
    at.put(at.views.instances, memberNo(1));
    at.put(at.views.instances, memberNo(2, { spec: { network: "red" } }));
    at.put(at.views.addresses, addressOf("a", { instance: "i1" }));
    await at.policies.apply(key);
    await at.policies.apply(redKey);
    expect(inForce()).toEqual([[at.blue.metadata.uid, "10.0.0.1"]]);
  });

  test("is in one place at a time, also when the next one is told first", async () => {
    at.put(at.views.addresses, withGeneration(addressOf("a", { instance: "i2" })));
    await at.policies.apply(redKey);
    expect(inForce()).toEqual([[at.blue.metadata.uid, "10.0.0.1"]]);
    await at.policies.apply(key);
    expect(inForce()).toEqual([]);
    expect(at.policies.isInForce(redKey)).toBe(false);
    await at.policies.apply(redKey);
    expect(inForce()).toEqual([[red.metadata.uid, "10.0.0.2"]]);
  });

  test("is free with the network that had it", async () => {
    at.put(at.views.addresses, withGeneration(addressOf("a", { instance: "i2" })));
    await at.policies.apply(redKey);
    at.host.bridges.delete(at.blue.metadata.uid);
    at.policies.forget(key);
    await at.policies.apply(redKey);
    expect(inForce()).toEqual([[red.metadata.uid, "10.0.0.2"]]);
  });
});

test("a changed group of a hundred instances costs few milliseconds of our own", async () => {
  const { put, views, policies, applied } = at;
  const rules = (cidr: string) =>
    Array.from({ length: 1_000 }, (_, index) => ({ protocol: "tcp", ports: String(index + 1), cidr }));
  put(views.securityGroups, withGeneration(groupOf("default", { ingress: rules("10.0.0.0/8") })));
  for (let index = 1; index <= 100; index++) put(views.instances, memberNo(index));
  await policies.apply(key);
  const samples: number[] = [];
  for (let generation = 3; generation < 23; generation++) {
    const group = groupOf("default", { ingress: rules(`10.${generation}.0.0/16`) });
    const begun = performance.now();
    put(views.securityGroups, { ...group, metadata: { ...group.metadata, generation } });
    await policies.apply(key);
    samples.push(performance.now() - begun);
  }
  samples.sort((a, b) => a - b);
  expect(applied).toHaveLength(21);
  expect(samples[10]).toBeLessThan(20);
});
