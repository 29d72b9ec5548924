import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseTarget } from "./ends.ts";
import { guest, worldOf } from "./testing-world.ts";
import { traceRoute } from "./trace.ts";
import { cardsOf } from "./world.ts";

const world = worldOf({
  networks: {
    front: {
      cidr: "10.0.0.0/16",
      subnets: "custom",
      status: {
        cidr: "10.0.0.0/16",
        ipv6Cidr: "fd00:0:1::/48",
        hostAddresses: { alpha: "100.64.0.2" },
      },
    },
    back: { cidr: "10.1.0.0/16", status: { cidr: "10.1.0.0/16", hostRoute: true } },
    lab: { cidr: "10.2.0.0/16", internet: false, status: { cidr: "10.2.0.0/16" } },
    twin: { cidr: "10.0.0.0/16", status: { cidr: "10.0.0.0/16" } },
    "partner/shared": { cidr: "10.9.0.0/16", status: { cidr: "10.9.0.0/16" } },
  },
  subnets: {
    a: { network: "front", cidr: "10.0.1.0/24", status: { gateway: "10.0.1.1" } },
    b: { network: "front", cidr: "10.0.2.0/24", routeTable: "narrow", status: { gateway: "10.0.2.1" } },
    back: { network: "back", cidr: "10.1.0.0/16", status: { gateway: "10.1.0.1" } },
    c: { network: "front", cidr: "10.0.3.0/24", routeTable: "shut" },
    lab: { network: "lab", cidr: "10.2.0.0/16" },
    twin: { network: "twin", cidr: "10.0.0.0/16" },
  },
  routeTables: {
    shut: { network: "front", routes: [] },
    narrow: {
      network: "front",
      routes: [
        { destination: "0.0.0.0/0", target: "internet" },
        { destination: "192.0.2.0/24", target: "none" },
        { destination: "10.1.0.0/24", target: "peering", via: "join" },
      ],
    },
  },
  peerings: {
    join: { network: "back", peerNetwork: "front", status: { state: "active" } },
    abroad: { network: "front", peerProject: "partner", peerNetwork: "shared" },
  },
  securityGroups: {
    web: { ingress: [{ protocol: "tcp", ports: "80", cidr: "0.0.0.0/0" }] },
    db: {
      ingress: [
        { protocol: "tcp", ports: "5432", group: "web" },
        { protocol: "tcp", ports: "6000-6010", cidr: "10.0.0.0/16" },
      ],
      egress: [{ protocol: "udp", ports: "53", cidr: "0.0.0.0/0" }],
    },
    open: { ingress: [{ protocol: "any", cidr: "0.0.0.0/0" }] },
  },
  instances: {
    web: guest("front", "a", "10.0.1.10", ["web"], { ipv6Address: "fd00:0:1::10" }),
    db: guest("front", "b", "10.0.2.20", ["db"]),
    bare: guest("front", "a", "10.0.1.30", []),
    narrow: guest("front", "b", "10.0.2.40", ["open"]),
    api: guest("back", "back", "10.1.0.5", ["open"]),
    boxed: guest("front", "c", "10.0.3.5", ["open"]),
    far: guest("back", "back", "10.1.9.5", ["open"]),
    alone: guest("lab", "lab", "10.2.0.5", ["open"]),
    asleep: guest("twin", "twin", "10.0.1.10", ["open"], { state: "stopped" }),
    dark: guest("front", "a", "10.0.1.50", ["web"], { spec: { metadata: { enabled: false } } }),
    "partner/theirs": guest("shared", "shared", "10.9.0.5", ["open"]),
  },
  networkInterfaces: {
    leg: {
      network: "lab",
      instance: "web",
      securityGroups: ["open"],
      status: { subnet: "lab", macAddress: "02:00:00:00:00:09", ipAddress: "10.2.0.9" },
    },
  },
  addresses: {
    front: { instance: "web", status: { ipAddress: "203.0.113.5" } },
    spare: { status: { ipAddress: "203.0.113.6" } },
    box: { instance: "boxed", status: { ipAddress: "203.0.113.7" } },
  },
  publishedPorts: { "tcp-5000": { port: 5000, instance: "db", targetPort: 6001 } },
});

const trace = (from: string, to: string, family: 4 | 6 = 4) =>
  traceRoute(world, { project: "campus", from, to: parseTarget(to), family });

describe("passes", () => {
  test.each([
    ["within a network, by a group's rule", "web", "db:5432", "rule 1: tcp 5432 from group web"],
    ["within a network, by a range", "narrow", "db:6010", "rule 2: tcp 6000-6010 from 10.0.0.0/16"],
    ["by address", "10.0.1.10", "10.0.2.20:5432", "group db lets it in by rule 1"],
    [
      "to another network, by the defaults",
      "web",
      "api:22",
      "peering join joins the networks front and back",
    ],
    [
      "to another network, by a table",
      "narrow",
      "api:22",
      "route table narrow has 10.1.0.0/24 by peering join",
    ],
    ["by a second card, in its network", "web", "alone:22", "10.2.0.9 in subnet lab of network lab"],
    ["to the outside", "web", "outside:443", "its address is 203.0.113.5 (address front)"],
    ["to the outside, as the host", "narrow", "198.51.100.9:443", "its address is the host's"],
    ["DNS at the gateway", "bare", "10.0.1.1:53/udp", "answers DNS, DHCP and ping"],
    ["a ping to the gateway", "db", "10.0.2.1/icmp", "answers DNS"],
    ["metadata", "web", "169.254.169.254:80", "with a session token (IMDSv2)"],
    ["from the host", "host", "bare:9999", "send from 100.64.0.2"],
    ["from outside, by an address", "outside", "203.0.113.5:80", "leads to web: 10.0.1.10"],
    ["from outside, by the instance's name", "outside", "web:80", "address front"],
    ["from outside, to the host itself", "outside", "host:22", "its own firewall"],
    ["from guest to guest by an address", "narrow", "203.0.113.5:80", "rule 1: tcp 80 from 0.0.0.0/0"],
    ["to a neighbour's address, as the neighbour that it is", "web", "203.0.113.7:9", "open lets it in"],
    ["another network's address, as what it spoke to", "api", "203.0.113.5:80", "leads to web"],
    ["out by an address, whatever the routes say", "boxed", "outside:80", "address box gives it a way"],
    ["from the host, by a published port", "host", "host:5000", "the host is trusted"],
    ["to itself", "web", "web:1", "does not leave the instance"],
  ])("%s", (what, from, to, said) => {
    const { passes, steps, verdict } = trace(from, to);
    expect(steps.map((step) => step.text).join("\n"), what).toContain(said);
    expect([passes, verdict]).toEqual([true, "passes"]);
  });
});

describe("does not pass", () => {
  test.each([
    [
      "a port that no rule has",
      "web",
      "db:22",
      "no ingress rule of db's security group db allows tcp 22 from 10.0.1.10",
    ],
    [
      "out, where egress is narrow",
      "db",
      "web:80",
      "no egress rule of db's security group db allows tcp 80 to 10.0.1.10",
    ],
    ["without any group", "bare", "web:80", "bare has no security group, so nothing may go out"],
    ["another network without peering", "api", "alone:22", "no peering joins the networks back and lab"],
    [
      "a peering that waits",
      "web",
      "partner/theirs:22",
      "peering abroad of the networks front and partner/shared waits",
    ],
    [
      "a table without the route",
      "narrow",
      "far:22",
      "route table narrow has 0.0.0.0/0 to the outside, not by peering join",
    ],
    ["answers that have no way back", "far", "narrow:22", "answers do not come back"],
    ["a route that is refused", "narrow", "192.0.2.7:80", "route table narrow has 192.0.2.0/24 refused"],
    [
      "a network without a way out",
      "alone",
      "outside:80",
      "network lab has none to 198.51.100.1 (internet: false)",
    ],
    ["the gateway's other ports", "web", "10.0.1.1:22", "answers DNS, DHCP and ping, and nothing else"],
    [
      "another network's gateway",
      "api",
      "10.0.1.1:53",
      "gateways of network front answer its own instances only",
    ],
    ["metadata switched off", "dark", "169.254.169.254:80", "has its metadata service switched off"],
    ["an address nobody has", "web", "10.0.1.99:80", "no card of network front has 10.0.1.99"],
    [
      "from outside to what is not published",
      "outside",
      "narrow:80",
      "tcp port 80 of narrow is not published",
    ],
    [
      "from outside against the rules",
      "outside",
      "203.0.113.5:22",
      "no ingress rule of web's security group web",
    ],
    ["a published port against the rules", "outside", "host:5000", "allows tcp 6001 from 198.51.100.1"],
    [
      "an address that is nobody's",
      "outside",
      "203.0.113.6:80",
      "address spare (203.0.113.6) belongs to no instance",
    ],
    ["IPv6 where rules name IPv4 only", "fd00:0:1::99", "web:80", "nobody sends from fd00:0:1::99"],
    ["between two outside", "outside", "192.0.2.1:80", "neither end is in a network"],
  ])("%s", (_what, from, to, said) => {
    const { passes, verdict } = trace(from, to);
    expect(verdict).toContain(said);
    expect(passes).toBe(false);
  });
});

test("every rule that was asked is named, with what did not fit", () => {
  const { steps } = trace("web", "db:6005");
  const ingress = steps.find((step) => step.stage === "ingress");
  expect(ingress?.groups).toEqual([
    {
      group: "db",
      allows: true,
      rules: [
        { number: 1, rule: "tcp 5432 from group web", matches: false, because: "protocol or port" },
        { number: 2, rule: "tcp 6000-6010 from 10.0.0.0/16", matches: true },
      ],
    },
  ]);
});

test("a joined network that cannot be seen is named", () => {
  const unseen = { ...world, networks: world.networks.filter(({ metadata }) => metadata.name !== "shared") };
  const [abroad] = unseen.peerings.filter(({ metadata }) => metadata.name === "abroad");
  const peerings = abroad ? [{ ...abroad, status: { ...abroad.status, state: "active" as const } }] : [];
  const query = { project: "campus", from: "web", to: parseTarget("10.9.0.5:80"), family: 4 as const };
  const texts = traceRoute(
    { ...unseen, peerings, instances: world.instances.filter((one) => one.metadata.project === "campus") },
    query,
  );
  expect(texts.steps.map((step) => step.text).join()).toContain(
    "leads to network partner/shared, which cannot be seen",
  );
});

test("a guest that does not run is said, and decides nothing", () => {
  const { passes, steps } = traceRoute(world, {
    project: "campus",
    from: "host",
    to: parseTarget("asleep:22"),
    family: 4,
  });
  expect(passes).toBe(true);
  expect(steps.map((step) => step.text)).toContain("asleep is stopped: nobody receives");
});

test.each([
  ["nobody", "web:80", 'there is no instance "nobody" in project campus'],
  ["wbe", "db:80", 'did you mean "web"?'],
  ["outside", "10.0.1.10:80", "10.0.1.10 is in several networks (front, twin): name the instance instead"],
])("%s to %s is refused: %s", (from, to, message) => expect(() => trace(from, to)).toThrow(message));

test.each(["web", "web:0", "web:70000", "web:80/sctp", "fd00::1:80", ":80", ""])("%j is no target", (text) =>
  expect(() => parseTarget(text)).toThrow("is not where a packet can go"),
);

test("an IPv6 target has brackets", () => {
  expect(parseTarget("[fd00::7]:53/udp")).toEqual({ end: "fd00::7", protocol: "udp", port: 53 });
  expect(parseTarget("web/icmp")).toEqual({ end: "web", protocol: "icmp" });
});

describe("whatever is asked", () => {
  const names = world.instances.map((one) => one.metadata.name).filter((name) => name !== "theirs");
  const end = fc.constantFrom(...names);
  const port = fc.integer({ min: 1, max: 65_535 });

  test("a verdict agrees with its steps", () => {
    fc.assert(
      fc.property(end, end, port, (from, to, number) => {
        const { passes, steps, verdict } = trace(from, `${to}:${number}`);
        expect(passes).toBe(steps.every((step) => step.result !== "drop"));
        expect(verdict === "passes").toBe(passes);
      }),
    );
  });

  test("a guest named and a guest by its address are the same", () => {
    const unique = cardsOf(world).filter(
      (card) => card.interface === undefined && card.ipAddress !== "10.0.1.10",
    );
    fc.assert(
      fc.property(end, fc.constantFrom(...unique), port, (from, card, number) => {
        const byName = trace(
          from,
          `${card.project === "campus" ? "" : "partner/"}${card.instance.metadata.name}:${number}`,
        );
        const byAddress = trace(from, `${card.ipAddress}:${number}`);
        expect(byAddress.passes).toBe(byName.passes);
      }),
    );
  });

  test("what one group allows, more groups allow as well", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("web", "db", "open"),
        fc.constantFrom("web", "db", "open"),
        port,
        (one, more, number) => {
          const passes = (...groups: string[]) =>
            traceRoute(
              {
                ...world,
                instances: worldOf({
                  instances: {
                    x: guest("front", "a", "10.0.1.77", groups),
                    y: guest("front", "a", "10.0.1.78", ["web", "open"]),
                  },
                }).instances,
              },
              { project: "campus", from: "y", to: parseTarget(`x:${number}`), family: 4 },
            ).passes;
          if (passes(one)) expect(passes(more, one)).toBe(true);
        },
      ),
    );
  });
});
