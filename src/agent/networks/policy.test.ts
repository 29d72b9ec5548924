import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Instance } from "../../kinds/instance.ts";
import type { SecurityGroup } from "../../kinds/security-group.ts";
import { instanceOf } from "../instances/testing.ts";
import { networkPolicy, type PolicySources } from "./policy.ts";
import { addressOf, groupOf, interfaceOf, portOf } from "./testing-resources.ts";

function sourcesOf(change: Partial<PolicySources> = {}, groups: SecurityGroup[] = []): PolicySources {
  const named = new Map(groups.map((group) => [group.metadata.name, group]));
  return {
    instances: [],
    interfaces: [],
    group: (name) => named.get(name),
    publishedPorts: [],
    addresses: [],
    ...change,
  };
}

const web = instanceOf();

/** A neighbour with an address, a name and a uid of its own. */
function instanceNo(index: number, spec: Partial<Instance["spec"]> = {}): Instance {
  const uid = `i${index}`.padEnd(16, "x") as Instance["metadata"]["uid"];
  const instance = instanceOf({ spec, metadata: { name: `i${index}`, uid } });
  const nic = {
    network: "default",
    subnet: "one",
    macAddress: `02:00:00:00:02:${index.toString(16).padStart(2, "0")}`,
    ipAddress: `10.0.0.${index}`,
  };
  return { ...instance, status: { ...instance.status, nic } };
}

describe("cards", () => {
  test("of an instance: its addresses, its name, its groups", () => {
    const { policy } = networkPolicy(sourcesOf({ instances: [web] }, [groupOf("default")]));
    expect(policy.cards).toEqual([
      {
        uid: web.metadata.uid,
        subnet: "default",
        port: "g-111111111111",
        macAddress: "02:00:00:00:00:01",
        ipAddress: "10.0.0.2",
        ipv6Address: "fd00::2",
        hostname: "web",
        groups: [groupOf("default").metadata.uid],
        metadata: true,
      },
    ]);
  });

  test("further ones have no name, and ask for metadata as their instance may", () => {
    const instance = instanceOf({ spec: { metadata: { enabled: false, tokens: "required" } } });
    const card = interfaceOf("nic", { securityGroups: [] });
    const { policy } = networkPolicy(sourcesOf({ interfaces: [{ card, instance }] }));
    expect(policy.cards).toEqual([
      {
        uid: card.metadata.uid,
        subnet: "one",
        port: "n-c-nic0000000",
        macAddress: "02:00:00:00:01:01",
        ipAddress: "10.0.0.101",
        groups: [],
        metadata: false,
      },
    ]);
  });

  test("without an address there is none", () => {
    const { nic, ...status } = web.status;
    const sources = sourcesOf({ instances: [{ ...web, status }] });
    expect(nic && networkPolicy(sources).policy.cards).toEqual([]);
  });

  test("a group that is gone, and one named twice", () => {
    const instance = instanceOf({ spec: { securityGroups: ["gone", "default", "default"] } });
    const { policy, groups } = networkPolicy(sourcesOf({ instances: [instance] }, [groupOf("default")]));
    expect(policy.cards[0]?.groups).toHaveLength(1);
    expect([...groups].sort()).toEqual(["default", "gone"]);
  });

  test("of two that claim one address, the younger has it", () => {
    const old = {
      ...instanceNo(7),
      metadata: { ...instanceNo(7).metadata, createdAt: "2020-01-01T00:00:00Z" },
    };
    const young = interfaceOf("nic", {}, { ipAddress: "10.0.0.7" });
    const { policy } = networkPolicy(
      sourcesOf({ instances: [old, web], interfaces: [{ card: young, instance: web }] }),
    );
    expect(policy.cards.map(({ uid }) => uid).sort()).toEqual([web.metadata.uid, young.metadata.uid].sort());
  });
});

describe("groups", () => {
  const groupsOf = (groups: SecurityGroup[], names: string[]) =>
    networkPolicy(sourcesOf({ instances: [instanceOf({ spec: { securityGroups: names } })] }, groups));

  test("rules by address and by group, in both directions", () => {
    const spec = {
      ingress: [
        { protocol: "tcp", ports: "22", cidr: "10.0.0.0/8" },
        { protocol: "udp", ports: "8000-8100", group: "default" },
        { protocol: "icmp", cidr: "::/0" },
      ],
      egress: [{ protocol: "any", cidr: "0.0.0.0/0" }],
    };
    const group = groupOf("default", spec);
    expect(groupsOf([group], ["default"]).policy.groups).toEqual([
      {
        uid: group.metadata.uid,
        ingress: [
          { protocol: "tcp", ports: { first: 22, last: 22 }, peer: { cidr: "10.0.0.0/8" } },
          { protocol: "udp", ports: { first: 8000, last: 8100 }, peer: { group: group.metadata.uid } },
          { protocol: "icmp", peer: { cidr: "::/0" } },
        ],
        egress: [{ protocol: "any", peer: { cidr: "0.0.0.0/0" } }],
      },
    ]);
  });

  test("one that only a rule names is there without rules; whom nobody names is not", () => {
    const front = groupOf("front", { ingress: [{ protocol: "any", group: "back" }] });
    const back = groupOf("back", { ingress: [{ protocol: "any", group: "far" }] });
    const { policy, groups } = groupsOf([front, back, groupOf("far"), groupOf("idle")], ["front"]);
    expect(policy.groups).toEqual([
      { uid: back.metadata.uid, ingress: [], egress: [] },
      {
        uid: front.metadata.uid,
        ingress: [{ protocol: "any", peer: { group: back.metadata.uid } }],
        egress: [],
      },
    ]);
    expect([...groups].sort()).toEqual(["back", "front"]);
  });

  test("a rule that names a group which is gone fits nobody", () => {
    const front = groupOf("front", { ingress: [{ protocol: "any", group: "gone" }] });
    const { policy, groups } = groupsOf([front], ["front"]);
    expect(policy.groups[0]?.ingress).toEqual([]);
    expect(groups.has("gone")).toBe(true);
  });
});

test("ports and addresses lead to the instance's own card", () => {
  const publishedPorts = [
    { port: portOf("same", { port: 8080, instance: "web" }), instance: web },
    { port: portOf("dns", { protocol: "udp", port: 53, targetPort: 5353, instance: "web" }), instance: web },
  ];
  const addresses = [{ address: addressOf("a", { instance: "web" }), instance: web }];
  const { policy } = networkPolicy(sourcesOf({ publishedPorts, addresses }));
  expect(policy.publishedPorts).toEqual([
    { protocol: "tcp", port: 8080, ipAddress: "10.0.0.2", targetPort: 8080 },
    { protocol: "udp", port: 53, ipAddress: "10.0.0.2", targetPort: 5353 },
  ]);
  expect(policy.addresses).toEqual([{ address: "203.0.113.7", ipAddress: "10.0.0.2" }]);
});

const someGroups = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d"), { maxLength: 4 });
const someRules = fc.array(
  fc.oneof(
    fc.record({ protocol: fc.constant("any"), group: fc.constantFrom("a", "b", "c", "d", "gone") }),
    fc.record({ protocol: fc.constant("tcp"), ports: fc.constant("22"), cidr: fc.constant("10.0.0.0/8") }),
  ),
  { maxLength: 3 },
);

test("whatever there is: no address twice, no group that is named and absent, the same in any order", () => {
  const world = fc.record({
    members: fc.uniqueArray(fc.tuple(fc.integer({ min: 2, max: 99 }), someGroups), {
      selector: ([index]) => index,
    }),
    rules: fc.tuple(someRules, someRules, someRules),
  });
  fc.assert(
    fc.property(world, ({ members, rules }) => {
      const groups = ["a", "b", "c"].map((name, index) => groupOf(name, { ingress: rules[index] }));
      const instances = members.map(([index, securityGroups]) => instanceNo(index, { securityGroups }));
      const { policy } = networkPolicy(sourcesOf({ instances }, groups));
      const reversed = sourcesOf({ instances: instances.toReversed() }, groups);
      expect(networkPolicy(reversed).policy).toEqual(policy);
      expect(policy.cards).toHaveLength(instances.length);
      const known = new Set(policy.groups.map(({ uid }) => uid));
      for (const card of policy.cards) for (const uid of card.groups) expect(known.has(uid)).toBe(true);
      for (const { ingress } of policy.groups)
        for (const { peer } of ingress) if ("group" in peer) expect(known.has(peer.group)).toBe(true);
    }),
    { numRuns: 200 },
  );
});
