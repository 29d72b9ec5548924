import { describe, expect, it } from "vitest";
import { innerAddresses } from "./links.ts";
import { planMending, type SeenInside, type SeenLink, type SeenNetwork } from "./mending.ts";
import { planNetwork } from "./network-plan.ts";
import type { NetworkRequest } from "./networks.ts";
import { type PlacedNetwork, planRouting } from "./routing.ts";
import { planSysctls } from "./sysctls.ts";
import { uplinkPair } from "./uplink-pair.ts";

const request: NetworkRequest = {
  uid: "0123456789abcdef",
  cidr: "10.77.0.0/16",
  ipv6Cidr: "fd00:77::/48",
  domain: "demo.internal",
  hostRoute: true,
  internet: true,
  subnets: [
    {
      name: "a",
      index: 0,
      cidr: "10.77.0.0/24",
      gateway: "10.77.0.1",
      ipv6Cidr: "fd00:77::/64",
      ipv6Gateway: "fd00:77::1",
    },
    { name: "b", index: 1, cidr: "10.77.1.0/24", gateway: "10.77.1.1" },
  ],
  peerings: [{ uid: "00000000000000p1", network: "0000000000000002", ranges: ["10.9.0.0/16"] }],
};
const peeringName = "p00000000000000";

function place(change: Partial<NetworkRequest> = {}, joined: string[] = []): PlacedNetwork {
  const config = { namespace: "strata", runDir: "/run/strata" };
  const plan = planNetwork(config, { ...request, ...change }, { mtu: 1500, ipv6: true, outside6: true });
  return { ...plan, pair: uplinkPair(5), joined: new Set(joined) };
}

/** All that is wanted of a network. */
function complete(network: PlacedNetwork): SeenInside {
  const links = new Map<string, SeenLink>([["lo", { up: true, mtu: 65_536, addresses: ["127.0.0.1/8"] }]]);
  for (const [device, addresses] of innerAddresses(network, network.pair)) {
    links.set(device, { up: true, mtu: 1500, addresses });
  }
  for (const { uid, link } of network.peerings) {
    if (network.joined.has(uid)) links.set(link, { up: true, mtu: 1500, addresses: [] });
  }
  links.set("port1", { up: true, mtu: 1500, bridge: "br0", addresses: ["fe80::5/64"] });
  return {
    links,
    routing: { 4: planRouting(network, 4), 6: planRouting(network, 6) },
    sysctls: planSysctls(network),
  };
}

const network = place();
const inside = complete(network);
const service = { pid: 7, netns: 100, current: true };
const healthy: SeenNetwork = {
  netns: { state: "there", inode: 100, inside },
  uplink: "ready",
  services: { dns: service, dhcp: { ...service, pid: 8 } },
  forgotten: false,
};

function within(change: Partial<SeenInside>): SeenNetwork {
  return { ...healthy, netns: { state: "there", inode: 100, inside: { ...inside, ...change } } };
}
function withLink(name: string, change: Partial<SeenLink> | undefined): SeenNetwork {
  const links = new Map(inside.links);
  if (change === undefined) links.delete(name);
  else links.set(name, { up: true, mtu: 1500, addresses: [], ...links.get(name), ...change });
  return within({ links });
}

describe("planMending", () => {
  it("leaves a healthy network alone", () => {
    expect(planMending(network, healthy)).toEqual({ wrong: [], dropInnerUplink: false, restart: [] });
  });

  it("makes everything where nothing is", () => {
    const nothing: SeenNetwork = {
      netns: { state: "absent" },
      uplink: "absent",
      services: {},
      forgotten: false,
    };
    const mending = planMending(network, nothing);
    expect(mending).toMatchObject({
      wrong: ["no namespace", "no uplink", "no DNS process", "no DHCP process"],
      hostLinks: { netns: "make", staleUplink: false, uplink: true },
      restart: ["dns", "dhcp"],
    });
    expect(mending.inside?.drops).toEqual([]);
    expect(mending.inside?.bridges).toEqual(["br0", "br1"]);
    expect(mending.inside?.addresses).toMatchInlineSnapshot(`
      [
        "link set dev lo up",
        "address replace 10.77.0.1/24 dev br0",
        "address replace fd00:77::1/64 dev br0 nodad",
        "address replace fe80::1/64 dev br0 nodad",
        "link set dev br0 mtu 1500 up",
        "address replace 10.77.1.1/24 dev br1",
        "address replace fe80::1/64 dev br1 nodad",
        "link set dev br1 mtu 1500 up",
        "address replace 100.64.0.11/31 dev uplink",
        "address replace fd73:7472:6174::b/127 dev uplink nodad",
        "link set dev uplink mtu 1500 up",
      ]
    `);
  });

  it("gives a namespace in which its processes live its name back, and restarts nothing", () => {
    const mending = planMending(network, { ...healthy, netns: { state: "absent" } });
    expect(mending.hostLinks).toEqual({ netns: { attach: 7 }, staleUplink: false, uplink: false });
    expect(mending.inside).toBeUndefined();
    expect(mending.restart).toEqual([]);
  });

  it("replaces what leads into a namespace that is no more", () => {
    const seen: SeenNetwork = { ...healthy, netns: { state: "leftover" }, services: {} };
    expect(planMending(network, seen).hostLinks).toEqual({ netns: "make", staleUplink: true, uplink: true });
  });

  it("moves into a namespace that somebody made in place of ours", () => {
    const fresh: SeenInside = {
      links: new Map([["lo", { up: false, mtu: 65_536, addresses: [] }]]),
      routing: {
        4: { rules: new Set(), routes: new Set() },
        6: { rules: new Set(), routes: new Set() },
      },
      sysctls: new Map(),
    };
    const mending = planMending(network, {
      ...healthy,
      netns: { state: "there", inode: 101, inside: fresh },
    });
    expect(mending).toMatchObject({
      hostLinks: { netns: "there", staleUplink: true, uplink: true },
      restart: ["dns", "dhcp"],
    });
    expect(mending.inside?.bridges).toEqual(["br0", "br1"]);
  });

  it("mends the host's side", () => {
    const broken = planMending(network, { ...healthy, uplink: "broken" });
    expect(broken.wrong).toEqual(["uplink not ready"]);
    expect(broken.hostLinks).toEqual({ netns: "there", staleUplink: false, uplink: false });
    expect(broken.inside).toBeUndefined();
  });

  it("makes the inside of a new uplink anew, and takes an inner end without its other end out of the way", () => {
    const mending = planMending(network, { ...healthy, uplink: "absent" });
    expect(mending.dropInnerUplink).toBe(true);
    expect(mending.inside?.addresses).toContain("address replace 100.64.0.11/31 dev uplink");
    expect(mending.inside?.routing[4]).toEqual([
      "route replace default via 100.64.0.10 dev uplink table 900 proto 83 onlink",
    ]);
    const both = { ...withLink("uplink", undefined), uplink: "absent" as const };
    expect(planMending(network, both).dropInnerUplink).toBe(false);
  });

  it.each<[string, SeenNetwork, string[]]>([
    ["a bridge that is down", withLink("br1", { up: false }), ["link set dev br1 mtu 1500 up"]],
    ["another MTU", withLink("br0", { mtu: 1400 }), ["link set dev br0 mtu 1500 up"]],
    [
      "a gateway's address that is gone",
      withLink("br0", { addresses: ["fd00:77::1/64", "fe80::1/64"] }),
      ["address replace 10.77.0.1/24 dev br0", "link set dev br0 mtu 1500 up"],
    ],
  ])("mends %s, and nothing else", (_what, seen, addresses) => {
    const { inside: needs, ...rest } = planMending(network, seen);
    expect(rest).toMatchObject({ dropInnerUplink: false, restart: [] });
    expect(rest.hostLinks).toBeUndefined();
    expect(needs).toMatchObject({ drops: [], makes: [], addresses, routing: { 4: [], 6: [] } });
  });

  it("takes addresses of another pair off the uplink", () => {
    const old = ["100.64.0.9/31", "fe80::7/64", "100.64.0.11/31", "fd73:7472:6174::b/127"];
    expect(planMending(network, withLink("uplink", { addresses: old })).inside?.drops).toEqual([
      "address del 100.64.0.9/31 dev uplink",
    ]);
  });

  it("sets what somebody set otherwise", () => {
    const sysctls = new Map(inside.sysctls).set("ipv4/ip_forward", "0");
    expect(planMending(network, within({ sysctls })).wrong).toEqual(["ipv4/ip_forward is 0"]);
    // Those of interfaces that are not there yet are not there either.
    expect(planMending(network, within({ sysctls: new Map() })).wrong).toEqual([]);
  });

  it("carries out the difference in rules and routes", () => {
    const { rules, routes } = planRouting(network, 4);
    const [first = "", ...others] = routes;
    const four = { rules: new Set([...rules, "pref 7 lookup 9 protocol 83"]), routes: new Set(others) };
    const needs = planMending(network, within({ routing: { ...inside.routing, 4: four } })).inside;
    expect(needs?.familyDrops).toEqual({ 4: ["rule del pref 7 lookup 9 protocol 83"], 6: [] });
    expect(needs?.routing).toEqual({ 4: [`route replace ${first}`], 6: [] });
  });

  it("takes away bridges and peerings that are not wanted any more", () => {
    const fewer = place({ subnets: request.subnets.slice(0, 1), peerings: [] });
    const seen = {
      ...healthy,
      netns: { state: "there" as const, inode: 100, inside: complete(place({}, ["00000000000000p1"])) },
    };
    expect(planMending(fewer, seen).inside?.drops).toEqual([
      "link del dev br1",
      `link del dev ${peeringName}`,
    ]);
  });

  it("makes a peering's link once the other network is there", () => {
    const joined = place({}, ["00000000000000p1"]);
    const needs = planMending(joined, healthy).inside;
    expect(needs?.peerings.map(({ link }) => link)).toEqual([peeringName]);
    expect(needs?.addresses[0]).toBe(`link set dev ${peeringName} up`);
    expect(needs?.addresses[1]).toMatch(
      /^neigh replace 169\.254\.255\.254 lladdr 02:.* dev p0{14} nud permanent$/,
    );
    const again = { ...healthy, netns: { state: "there" as const, inode: 100, inside: complete(joined) } };
    expect(planMending(joined, again).wrong).toEqual([]);
  });

  it("binds DHCP to a new bridge", () => {
    const mending = planMending(network, withLink("br0", undefined));
    expect(mending.inside?.bridges).toEqual(["br0"]);
    expect(mending.restart).toEqual(["dhcp"]);
  });

  it("restarts a process that is gone, outdated, elsewhere, or remembers too much", () => {
    const restart = (change: Partial<SeenNetwork>) => planMending(network, { ...healthy, ...change }).restart;
    const dhcp = service;
    expect(restart({ services: { dhcp } })).toEqual(["dns"]);
    expect(restart({ services: { dhcp, dns: { ...service, current: false } } })).toEqual(["dns"]);
    expect(restart({ services: { dhcp, dns: { ...service, netns: 99 } } })).toEqual(["dns"]);
    expect(restart({ forgotten: true })).toEqual(["dhcp"]);
  });
});
