/**
 * The gateway's neighbour entries: which hardware address is behind each card's addresses. Pure.
 *
 * For IPv6 they are permanent: nobody is asked, so nobody can answer for another. For IPv4 the gateway asks, because answers
 * are checked at the port that they come from (policy/anti-spoofing.ts): so a connection to a guest that is still being
 * started waits the moment until it answers, where a permanent entry would lead its first packet into nothing and have it
 * sent again a second later. What is known of an address that came to another card is forgotten.
 */
import { formatIp, parseIp } from "../../core/ip-range.ts";
import type { SeenNeighbour } from "./kernel-json.ts";
import type { NetworkPlan } from "./network-plan.ts";
import type { CardPolicy } from "./networks.ts";

/** Entries by what identifies them: `ADDRESS dev BRIDGE`. */
export type Neighbours = Map<string, string>;

/** `cards`: of subnets that the plan has. */
export function planNeighbours(plan: NetworkPlan, cards: readonly CardPolicy[]): Neighbours {
  const bridges = new Map(plan.subnets.map(({ name, bridge }) => [name, bridge]));
  const entries: Neighbours = new Map();
  for (const { subnet, macAddress, ipAddress, ipv6Address } of cards) {
    const bridge = bridges.get(subnet);
    if (bridge === undefined) continue;
    const addresses = plan.ipv6Cidr === undefined ? [ipAddress] : [ipAddress, ipv6Address ?? ""];
    for (const text of addresses) {
      const address = parseIp(text); // in the form in which the kernel lists it
      if (address) entries.set(`${formatIp(address)} dev ${bridge}`, macAddress);
    }
  }
  return entries;
}

/** Of what the kernel has, the part that is on the bridges of subnets. */
export function seenNeighbours(plan: NetworkPlan, seen: readonly SeenNeighbour[]): Neighbours {
  const bridges = new Set(plan.subnets.map(({ bridge }) => bridge));
  return new Map(
    seen
      .filter(({ device }) => bridges.has(device))
      .map(({ address, device, macAddress }) => [`${address} dev ${device}`, macAddress]),
  );
}

/** Lines for `ip -batch`. An entry to be deleted may not be there, so these are carried out by themselves. */
export function renderNeighbours(
  wanted: Neighbours,
  seen: Neighbours,
): { puts: string[]; deletes: string[] } {
  const changed = [...wanted].filter(([entry, mac]) => seen.get(entry) !== mac);
  const isPermanent = ([entry]: readonly [string, string]) => entry.includes(":");
  const gone = [...seen.keys()].filter((entry) => !wanted.has(entry));
  const asked = changed.filter((one) => !isPermanent(one)).map(([entry]) => entry);
  return {
    puts: changed
      .filter(isPermanent)
      .map(([entry, mac]) => `neigh replace ${entry} lladdr ${mac} nud permanent`),
    deletes: [...gone, ...asked].map((entry) => `neigh del ${entry}`),
  };
}
