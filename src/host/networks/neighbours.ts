/**
 * The gateway's permanent neighbour entries: which hardware address is behind each card's addresses. Nobody is asked, so
 * nobody can answer for another, and the first packet to a guest waits for nothing. Pure.
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

/** Lines for `ip -batch`. An entry to be deleted may be gone with its bridge, so these are carried out by themselves. */
export function renderNeighbours(
  wanted: Neighbours,
  seen: Neighbours,
): { puts: string[]; deletes: string[] } {
  const puts = [...wanted].filter(([entry, mac]) => seen.get(entry) !== mac);
  const deletes = [...seen.keys()].filter((entry) => !wanted.has(entry));
  return {
    puts: puts.map(([entry, mac]) => `neigh replace ${entry} lladdr ${mac} nud permanent`),
    deletes: deletes.map((entry) => `neigh del ${entry}`),
  };
}
