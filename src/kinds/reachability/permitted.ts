/**
 * Who may talk to whom, by security groups. A party is all cards with the same list of groups, a range out there, or a
 * joined network. Members of one party have different addresses, so a rule by address can hold for some of them only:
 * `every` is what all members may do with all of the other party, `some` what at least one may do with one.
 */
import {
  contains,
  type IpAddress,
  type IpFamily,
  type IpRange,
  overlaps,
  parseRange,
} from "../../core/ip-range.ts";
import type { SecurityGroup } from "../security-group.ts";
import { type Rule, ruleOf } from "./rules.ts";
import {
  allTraffic,
  formatTraffic,
  intersectionOf,
  isNone,
  noTraffic,
  sameTraffic,
  type Traffic,
  trafficOf,
  unionOf,
} from "./traffic.ts";

export type Party =
  | CardsParty
  /** All addresses that are not private. */
  | { type: "outside"; title: string }
  /** Another network. `parties`: what is known to be in it; its groups are not the groups of this one. */
  | { type: "range"; title: string; range: string; parties: readonly CardsParty[] };

export interface CardsParty {
  type: "cards";
  title: string;
  groups: readonly SecurityGroup[];
  members: readonly IpAddress[];
}

/** Cards whose groups mean nothing where the rule is asked. */
type Seen = Party | { type: "addresses"; members: readonly IpAddress[] };

export interface Permitted {
  every: Traffic;
  some: Traffic;
}

export function permitted(from: Party, to: Party, family: IpFamily): Permitted {
  const out = sideOf(from, "egress", to, family);
  const into = sideOf(to, "ingress", from, family);
  return { every: intersectionOf(out.every, into.every), some: intersectionOf(out.some, into.some) };
}

/** What the rules of `party` say about the other one. Who has no rules does not refuse anything. */
function sideOf(party: Party, direction: "ingress" | "egress", other: Seen, family: IpFamily): Permitted {
  const unknown = { every: allTraffic, some: allTraffic };
  if (party.type === "outside") return unknown;
  if (party.type === "range") {
    const seen: Seen = other.type === "cards" ? { type: "addresses", members: other.members } : other;
    const sides = party.parties.map((one) => sideOf(one, direction, seen, family));
    if (sides.length === 0) return unknown;
    return {
      every: sides.map((side) => side.every).reduce(intersectionOf),
      some: unionOf(sides.map((side) => side.some)),
    };
  }
  const rules = party.groups.flatMap((group) => group.spec[direction].map(ruleOf));
  const meant = rules.map((rule) => ({ traffic: trafficOf(rule), extent: extentOf(rule, other, family) }));
  const having = (...extents: Extent[]) =>
    unionOf([noTraffic, ...meant.filter((one) => extents.includes(one.extent)).map((one) => one.traffic)]);
  return { every: having("all"), some: having("all", "some") };
}

type Extent = "all" | "some" | "none";

/** How much of the party a rule's other side is. */
function extentOf({ peer }: Rule, party: Seen, family: IpFamily): Extent {
  if ("group" in peer) {
    const member = party.type === "cards" && party.groups.some((one) => one.metadata.name === peer.group);
    return member ? "all" : "none";
  }
  const range = parseRange(peer.cidr)?.range;
  if (range?.family !== family) return "none";
  switch (party.type) {
    case "outside":
      return range.prefixLength === 0 ? "all" : isPrivate(range) ? "none" : "some";
    case "range": {
      const other = parseRange(party.range)?.range;
      if (!other || !overlaps(range, other)) return "none";
      return contains(range, other) ? "all" : "some";
    }
    case "cards":
    case "addresses": {
      const inside = party.members.filter((address) => contains(range, address)).length;
      return inside === 0 ? "none" : inside === party.members.length ? "all" : "some";
    }
  }
}

/** RFC 1918, RFC 6598, RFC 3927, loopback; RFC 4193, RFC 4291. */
const privateRanges = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "169.254.0.0/16",
  "127.0.0.0/8",
  "fc00::/7",
  "fe80::/10",
].flatMap((text) => parseRange(text)?.range ?? []);

function isPrivate(range: IpRange): boolean {
  return privateRanges.some((one) => contains(one, range));
}

/** `tcp 80`, `tcp 80; for some: tcp 22`; empty when nothing passes. */
export function formatPermitted({ every, some }: Permitted): string {
  if (sameTraffic(every, some)) return formatTraffic(every);
  const partly = `for some: ${formatTraffic(some)}`;
  return isNone(every) ? partly : `${formatTraffic(every)}; ${partly}`;
}
