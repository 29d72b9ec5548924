/**
 * One direction of a security group as elements of sets, so that a packet costs the same whatever the number of rules.
 *
 * The kernel refuses elements whose ranges overlap, and rules may overlap as they like. Ranges of addresses are either
 * apart or one within the other, and those of one length are the same or apart. So rules with ports have a set for each
 * length that occurs; in it, the ports of one range are merged. Rules without ports need no more than the widest ranges.
 * A rule changes elements of its own range only, and the number of elements never exceeds that of the rules.
 */
import { contains, formatRange, type IpFamily, type IpRange } from "../../../core/ip-range.ts";
import type { RulePolicy } from "../networks.ts";
import { type KnownRange, rangeOf } from "./known-texts.ts";

export interface Interval {
  first: number;
  last: number;
}

type PortProtocol = "tcp" | "udp";

export interface GroupSets {
  /** Ranges whose packets all match. */
  any: Record<IpFamily, string[]>;
  /** Ranges whose ICMP matches; of IPv6, whose ICMPv6. */
  icmp: Record<IpFamily, string[]>;
  /** By family and prefix length: `RANGE . PROTOCOL . PORTS`. */
  ports: Map<string, { family: IpFamily; elements: string[] }>;
  /** What other groups' cards may do, by group. */
  peers: Map<string, PeerTraffic>;
}

export interface PeerTraffic {
  any: boolean;
  icmp: boolean;
  ports: Record<PortProtocol, Interval[]>;
}

const allPorts: Interval = { first: 0, last: 65_535 };

export function planGroupSets(rules: readonly RulePolicy[]): GroupSets {
  const any: IpRange[] = [];
  const icmp: IpRange[] = [];
  const byRange = new Map<string, RangePorts>();
  const peers = new Map<string, PeerTraffic>();
  for (const { protocol, ports = allPorts, peer } of rules) {
    if ("group" in peer) {
      const traffic = peers.get(peer.group) ?? { any: false, icmp: false, ports: { tcp: [], udp: [] } };
      peers.set(peer.group, traffic);
      if (protocol === "any" || protocol === "icmp") traffic[protocol] = true;
      else traffic.ports[protocol].push(ports);
      continue;
    }
    const known = rangeOf(peer.cidr);
    if (!known) continue;
    if (protocol === "any") any.push(known.range);
    else if (protocol === "icmp") icmp.push(known.range);
    else {
      const entry = byRange.get(known.text) ?? { known, ports: { tcp: [], udp: [] } };
      byRange.set(known.text, entry);
      entry.ports[protocol].push(ports);
    }
  }
  for (const { ports } of peers.values()) {
    ports.tcp = mergeIntervals(ports.tcp);
    ports.udp = mergeIntervals(ports.udp);
  }
  return { any: widestByFamily(any), icmp: widestByFamily(icmp), ports: planPorts(byRange.values()), peers };
}

interface RangePorts {
  known: KnownRange;
  ports: Record<PortProtocol, Interval[]>;
}

function planPorts(entries: Iterable<RangePorts>): GroupSets["ports"] {
  const sets: GroupSets["ports"] = new Map();
  for (const { known, ports } of entries) {
    const { range, text } = known;
    const name = `${range.family}-${range.prefixLength}`;
    const set = sets.get(name) ?? { family: range.family, elements: [] };
    sets.set(name, set);
    for (const protocol of ["tcp", "udp"] as const) {
      for (const interval of mergeIntervals(ports[protocol])) {
        set.elements.push(`${text} . ${protocol} . ${formatInterval(interval)}`);
      }
    }
  }
  return sets;
}

/** The same numbers by the fewest intervals, in order; none touches another. */
export function mergeIntervals(intervals: readonly Interval[]): Interval[] {
  const merged: Interval[] = [];
  for (const { first, last } of [...intervals].sort((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before && first <= before.last + 1) before.last = Math.max(before.last, last);
    else merged.push({ first, last });
  }
  return merged;
}

export function formatInterval({ first, last }: Interval): string {
  return first === last ? String(first) : `${first}-${last}`;
}

/** Without those that are part of another. */
export function widestRanges(ranges: readonly IpRange[]): IpRange[] {
  const widest: IpRange[] = [];
  const ordered = [...ranges].sort((a, b) =>
    a.base === b.base ? a.prefixLength - b.prefixLength : a.base < b.base ? -1 : 1,
  );
  for (const range of ordered) {
    const before = widest.at(-1);
    if (!before || !contains(before, range)) widest.push(range);
  }
  return widest;
}

function widestByFamily(ranges: readonly IpRange[]): Record<IpFamily, string[]> {
  const of = (family: IpFamily) =>
    widestRanges(ranges.filter((range) => range.family === family)).map(formatRange);
  return { 4: of(4), 6: of(6) };
}
