import fc from "fast-check";
import { expect, test } from "vitest";
import { type IpAddress, parseIp } from "../../core/ip-range.ts";
import { type CardsParty, formatPermitted, type Party, permitted } from "./permitted.ts";
import { evaluateRules, ruleOf } from "./rules.ts";
import { worldOf } from "./testing-world.ts";
import { formatTraffic, intersectionOf, noTraffic, type Traffic, unionOf } from "./traffic.ts";

const { securityGroups } = worldOf({
  securityGroups: {
    web: { ingress: [{ protocol: "tcp", ports: "80", cidr: "0.0.0.0/0" }] },
    db: {
      ingress: [
        { protocol: "tcp", ports: "5432", group: "web" },
        { protocol: "tcp", ports: "22", cidr: "10.0.1.10/32" },
        { protocol: "icmp", cidr: "10.0.0.0/8" },
      ],
      egress: [{ protocol: "any", group: "db" }],
    },
    ops: { ingress: [{ protocol: "any", cidr: "203.0.113.0/24" }] },
  },
});
const ips = (...texts: string[]) => texts.flatMap((text) => parseIp(text) ?? []);
const party = (names: string[], ...members: string[]): CardsParty => ({
  type: "cards",
  title: names.join("+"),
  groups: securityGroups.filter((group) => names.includes(group.metadata.name)),
  members: ips(...members),
});
const web = party(["web"], "10.0.1.10", "10.0.1.11");
const db = party(["db"], "10.0.2.10");
const ops = party(["ops"], "10.0.3.10");
const outside: Party = { type: "outside", title: "outside" };
const office: Party = { type: "range", title: "office", range: "10.8.0.0/16", parties: [] };
/** Its groups have the same names, and are not the same. */
const branch: Party = {
  ...office,
  title: "branch",
  parties: [party(["db"], "10.8.0.5"), party(["web"], "10.8.0.6")],
};

test.each<[string, Party, Party, string]>([
  ["by group, and for some by address", web, db, "tcp 5432; icmp; for some: tcp 22, 5432; icmp"],
  ["where egress refuses", db, web, ""],
  ["from outside", outside, web, "tcp 80"],
  ["from outside, a part of it", outside, ops, "for some: all"],
  ["a private range is not outside", outside, db, ""],
  ["to the outside", web, outside, "all"],
  ["to the outside, refused", db, outside, ""],
  ["from a joined network", office, db, "icmp"],
  ["to what is known of a joined network", web, branch, "for some: tcp 22, 80; icmp"],
  ["from what is known of a joined network", branch, web, "for some: tcp 80"],
  ["among themselves", web, web, "tcp 80"],
])("%s", (_what, from, to, expected) => expect(formatPermitted(permitted(from, to, 4))).toBe(expected));

test("rules by IPv4 say nothing about IPv6", () => {
  expect(formatPermitted(permitted(outside, web, 6))).toBe("");
});

test("ports are merged where they touch", () => {
  const of = (...tcp: Traffic["tcp"]): Traffic => ({ ...noTraffic, tcp });
  expect(formatTraffic(unionOf([of({ first: 80, last: 81 }), of({ first: 82, last: 90 })]))).toBe(
    "tcp 80-90",
  );
  const common = intersectionOf(of({ first: 1, last: 65_535 }), of({ first: 5, last: 5 }));
  expect(formatTraffic(common)).toBe("tcp 5");
});

test("the summary agrees with the verdict on each packet", () => {
  const parties = [web, db, ops, party(["web", "ops"], "10.0.1.40", "203.0.113.9")];
  type Cards = Extract<Party, { type: "cards" }>;
  const verdict = (
    own: Cards,
    direction: "ingress" | "egress",
    other: Cards,
    peer: IpAddress,
    port: number,
  ) =>
    own.groups.some((group) => {
      const peerGroups = new Set(other.groups.map((one) => one.metadata.name));
      const packet = { protocol: "tcp" as const, port, peer, peerGroups };
      return evaluateRules(group.spec[direction].map(ruleOf), packet) !== undefined;
    });
  const has = ({ tcp }: Traffic, port: number) =>
    tcp.some(({ first, last }) => first <= port && port <= last);
  fc.assert(
    fc.property(
      fc.constantFrom(...(parties as Cards[])),
      fc.constantFrom(...(parties as Cards[])),
      fc.constantFrom(22, 80, 5432, 9999),
      (from, to, port) => {
        const pairs = from.members.flatMap((source) =>
          to.members.map(
            (target) =>
              verdict(from, "egress", to, target, port) && verdict(to, "ingress", from, source, port),
          ),
        );
        const { every, some } = permitted(from, to, 4);
        if (has(every, port)) expect(pairs.every(Boolean)).toBe(true);
        if (pairs.some(Boolean)) expect(has(some, port)).toBe(true);
      },
    ),
  );
});
