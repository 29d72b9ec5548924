/** Sets of traffic: which protocols, and which ports of them. Pure. */
import type { PortRange } from "../security-group.ts";
import type { Rule } from "./rules.ts";

export interface Traffic {
  /** Apart, in order, and never touching. */
  tcp: readonly PortRange[];
  udp: readonly PortRange[];
  icmp: boolean;
  /** Any other protocol. */
  other: boolean;
}

const everyPort: readonly PortRange[] = [{ first: 1, last: 65_535 }];
export const noTraffic: Traffic = { tcp: [], udp: [], icmp: false, other: false };
export const allTraffic: Traffic = { tcp: everyPort, udp: everyPort, icmp: true, other: true };

export function trafficOf({ protocol, ports }: Rule): Traffic {
  const range = ports ? [ports] : everyPort;
  switch (protocol) {
    case "any":
      return allTraffic;
    case "tcp":
      return { ...noTraffic, tcp: range };
    case "udp":
      return { ...noTraffic, udp: range };
    case "icmp":
      return { ...noTraffic, icmp: true };
  }
}

export function unionOf(all: readonly Traffic[]): Traffic {
  return {
    tcp: merged(all.flatMap((one) => one.tcp)),
    udp: merged(all.flatMap((one) => one.udp)),
    icmp: all.some((one) => one.icmp),
    other: all.some((one) => one.other),
  };
}

export function intersectionOf(a: Traffic, b: Traffic): Traffic {
  return {
    tcp: common(a.tcp, b.tcp),
    udp: common(a.udp, b.udp),
    icmp: a.icmp && b.icmp,
    other: a.other && b.other,
  };
}

function merged(ranges: readonly PortRange[]): PortRange[] {
  const apart: PortRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.first - b.first)) {
    const last = apart.at(-1);
    if (last && range.first <= last.last + 1) last.last = Math.max(last.last, range.last);
    else apart.push({ ...range });
  }
  return apart;
}

function common(a: readonly PortRange[], b: readonly PortRange[]): PortRange[] {
  return merged(
    a.flatMap((one) =>
      b.flatMap((other) => {
        const range = { first: Math.max(one.first, other.first), last: Math.min(one.last, other.last) };
        return range.first <= range.last ? [range] : [];
      }),
    ),
  );
}

const maxRangesShown = 6;

/** `all`, `tcp 80, 443; icmp`, or nothing. */
export function formatTraffic(traffic: Traffic): string {
  if (sameTraffic(traffic, allTraffic)) return "all";
  return [
    ...portsText("tcp", traffic.tcp),
    ...portsText("udp", traffic.udp),
    ...(traffic.icmp ? ["icmp"] : []),
    ...(traffic.other ? ["other protocols"] : []),
  ].join("; ");
}

function portsText(protocol: string, ranges: readonly PortRange[]): string[] {
  const [first] = ranges;
  if (!first) return [];
  if (first.first === 1 && first.last === 65_535) return [protocol];
  const shown = ranges
    .slice(0, maxRangesShown)
    .map((range) => (range.first === range.last ? String(range.first) : `${range.first}-${range.last}`));
  return [`${protocol} ${shown.join(", ")}${ranges.length > maxRangesShown ? ", …" : ""}`];
}

export function sameTraffic(a: Traffic, b: Traffic): boolean {
  return JSON.stringify([a.tcp, a.udp, a.icmp, a.other]) === JSON.stringify([b.tcp, b.udp, b.icmp, b.other]);
}

export function isNone(traffic: Traffic): boolean {
  return sameTraffic(traffic, noTraffic);
}
