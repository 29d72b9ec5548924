import { describe, expect, it } from "vitest";
import { planNetwork } from "./network-plan.ts";
import type { NetworkRequest } from "./networks.ts";
import { type PlacedNetwork, parseRoutes, parseRules, planRouting } from "./routing.ts";
import { uplinkPair } from "./uplink-pair.ts";

const facts = { mtu: 1500, ipv6: true, outside6: false };
const config = { namespace: "strata", runDir: "/run/strata" };
const peering = {
  uid: "00000000000000p1",
  network: "0000000000000002",
  ranges: ["10.9.0.0/16", "fd00:9::/48"],
};
const request: NetworkRequest = {
  uid: "0000000000000001",
  cidr: "10.0.0.0/16",
  ipv6Cidr: "fd00:1::/48",
  domain: "demo.internal",
  hostRoute: false,
  internet: true,
  subnets: [
    {
      name: "front",
      index: 0,
      cidr: "10.0.1.0/24",
      gateway: "10.0.1.1",
      ipv6Cidr: "fd00:1:0:1::/64",
      ipv6Gateway: "fd00:1:0:1::1",
    },
    {
      name: "back",
      index: 3,
      cidr: "10.0.2.0/24",
      gateway: "10.0.2.1",
      routes: [
        { destination: "0.0.0.0/0", target: "internet" },
        { destination: "10.9.0.0/16", target: { peering: peering.uid } },
        { destination: "10.8.0.1/32", target: "none" },
        { destination: "::/0", target: "internet" },
      ],
    },
  ],
  peerings: [peering],
};

function place(change: Partial<NetworkRequest> = {}, joined = [peering.uid], more = {}): PlacedNetwork {
  const plan = planNetwork(config, { ...request, ...change }, { ...facts, ...more });
  return { ...plan, pair: uplinkPair(1), joined: new Set(joined) };
}
const routes = (network: PlacedNetwork, family: 4 | 6) => [...planRouting(network, family).routes];

describe("rules", () => {
  it("put the network's own range first, then marks, then subnets with routes of their own", () => {
    expect([...planRouting(place(), 4).rules]).toMatchInlineSnapshot(`
      [
        "pref 100 oif uplink lookup 900 protocol 83",
        "pref 200 to 10.0.0.0/16 lookup 254 protocol 83",
        "pref 201 to 100.64.0.2/31 lookup 254 protocol 83",
        "pref 300 fwmark 0x53000000/0x53000000 lookup 900 protocol 83",
        "pref 1003 iif br3 lookup 1003 protocol 83",
        "pref 33000 iif lo lookup 900 protocol 83",
        "pref 33001 lookup 900 protocol 83",
      ]
    `);
  });

  it("refuse what has no way out", () => {
    expect(planRouting(place({ internet: false }), 4).rules).toContain("pref 33001 unreachable protocol 83");
    expect(planRouting(place(), 6).rules).toContain("pref 33001 unreachable protocol 83");
    expect(planRouting(place({}, [], { outside6: true }), 6).rules).toContain(
      "pref 33001 lookup 900 protocol 83",
    );
  });
});

describe("routes", () => {
  it("lead to peers and outside", () => {
    expect(routes(place(), 4)).toMatchInlineSnapshot(`
      [
        "default via 100.64.0.2 dev uplink table 900 proto 83 onlink",
        "unreachable 10.0.0.0/16 table 254 proto 83",
        "10.9.0.0/16 via 169.254.255.254 dev p00000000000000 src 10.0.1.1 table 254 proto 83 onlink",
        "default via 100.64.0.2 dev uplink table 1003 proto 83 onlink",
        "10.9.0.0/16 via 169.254.255.254 dev p00000000000000 src 10.0.1.1 table 1003 proto 83 onlink",
        "unreachable 10.8.0.1 table 1003 proto 83",
        "unreachable default table 1003 metric 4294967295 proto 83",
      ]
    `);
    expect(routes(place(), 6)).toMatchInlineSnapshot(`
      [
        "unreachable default table 900 proto 83",
        "unreachable fd00:1::/48 table 254 proto 83",
        "fd00:9::/48 via fe80::ffff:ffff dev p00000000000000 src fd00:1:0:1::1 table 254 proto 83 onlink",
        "unreachable default table 1003 proto 83",
        "unreachable default table 1003 metric 4294967295 proto 83",
      ]
    `);
  });

  it("to a peer that is not here refuse, so that nothing leaks outside", () => {
    expect(routes(place({}, []), 4)).toContain("unreachable 10.9.0.0/16 table 254 proto 83");
    expect(routes(place({}, []), 4)).toContain("unreachable 10.9.0.0/16 table 1003 proto 83");
  });

  it("leave a range alone that one subnet has as a whole: its connected route has the same key", () => {
    const subnets = [{ name: "all", index: 0, cidr: "10.0.0.0/16", gateway: "10.0.0.1" }];
    expect(routes(place({ subnets }), 4).filter((route) => route.includes("10.0.0.0/16"))).toEqual([]);
  });

  it("to one destination are one", () => {
    const other = { ...peering, uid: "10000000000000p2" };
    const network = place({ peerings: [peering, other] }, [peering.uid, other.uid]);
    expect(routes(network, 4).filter((route) => / table 254 /.test(route))).toHaveLength(2);
  });
});

describe("what the kernel lists", () => {
  it("is read as it was written", () => {
    const rules = `[{"priority":0,"src":"all","table":"255"},{"priority":100,"src":"all","oif":"uplink","table":"900","protocol":"83"},
{"priority":200,"src":"all","dst":"10.0.0.0","dstlen":16,"table":"254","protocol":"83"},
{"priority":201,"src":"all","dst":"100.64.0.2","dstlen":31,"table":"254","protocol":"83"},
{"priority":300,"src":"all","fwmark":"0x53000000","fwmask":"0x53000000","table":"900","protocol":"83"},
{"priority":1003,"src":"all","iif":"br3","table":"1003","protocol":"83"},
{"priority":33000,"src":"all","iif":"lo","table":"900","protocol":"83"},
{"priority":33001,"src":"all","table":"900","protocol":"83"},{"priority":40000,"src":"all","table":"7","protocol":"0"}]`;
    expect(parseRules(rules, 4)).toEqual(planRouting(place(), 4).rules);
    const listed = `[{"dst":"default","gateway":"100.64.0.2","dev":"uplink","table":"900","flags":["onlink"]},
{"type":"7","dst":"10.0.0.0/16","flags":[]},
{"dst":"10.9.0.0/16","gateway":"169.254.255.254","dev":"p00000000000000","prefsrc":"10.0.1.1","flags":["onlink"]},
{"dst":"default","gateway":"100.64.0.2","dev":"uplink","table":"1003","flags":["onlink"]},
{"dst":"10.9.0.0/16","gateway":"169.254.255.254","dev":"p00000000000000","table":"1003","prefsrc":"10.0.1.1","flags":["onlink"]},
{"type":"7","dst":"10.8.0.1","table":"1003","flags":[]},
{"type":"7","dst":"default","table":"1003","metric":4294967295,"flags":[]}]`;
    expect(parseRoutes(listed, 4)).toEqual(planRouting(place(), 4).routes);
    const listed6 = `[{"type":"7","dst":"default","dev":"lo","table":"900","metric":1024,"flags":[],"pref":"medium"}]`;
    expect(parseRoutes(listed6, 6)).toEqual(new Set(["unreachable default table 900 proto 83"]));
    const refusing = `[{"priority":33001,"src":"all","action":"7","protocol":"83"}]`;
    expect(parseRules(refusing, 4)).toEqual(new Set(["pref 33001 unreachable protocol 83"]));
    expect(parseRules("", 4)).toEqual(new Set());
  });
});
