import { StrataError } from "../core/errors.ts";
import {
  contains,
  formatIp,
  formatRange,
  type IpRange,
  lastOf,
  overlaps,
  parseRange,
  sizeOf,
} from "../core/ip-range.ts";
import { instanceKind } from "../kinds/instance.ts";
import { immutable } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { networkInterfaceKind } from "../kinds/network-interface.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { maxSubnets, type Subnet, type SubnetStatus, subnetKind } from "../kinds/subnet.ts";
import { groupsNaming } from "./group-users.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed, usersInMessage } from "./references.ts";

/**
 * Parts of a network's range that do not overlap. Every creation rewrites `/allocations/subnets/NETWORK-UID`, so that of
 * two that looked at the same state only one commits; it also remembers the next index, because an index names a bridge
 * and is never used twice while the network lives.
 */
export const subnetHooks: KindHooks<Subnet["spec"], SubnetStatus> = {
  admit: admitSubnet,
  async admitUpdate(next, previous, world, action) {
    if (next.spec.routeTable === previous.spec.routeTable) return [];
    const references = new References(world, next.metadata.project ?? "");
    await findRouteTable(references, next);
    references.check(action);
    return references.writes();
  },
  validateStatus: (next, previous) =>
    immutable(next, previous, ["ipv6Cidr", "gateway", "ipv6Gateway", "index"]).map((error) => ({
      ...error,
      path: error.path.replace(/^spec/, "status"),
    })),
  closing: closeReferences,
  async checkDelete(subnet, world, mode) {
    if (mode.withProject) return;
    const { name, owner } = subnet.metadata;
    if (owner) {
      throw new StrataError(
        "Conflict",
        `cannot delete subnet "${name}": it is the one subnet of network "${owner.name}" and goes with it; ` +
          "delete the network, or create one with spec.subnets: custom",
      );
    }
    refuseWhileUsed(`subnet "${name}"`, await cardsIn(subnet, world));
  },
};

/** @throws Invalid, Conflict */
async function admitSubnet(subnet: Subnet, world: World, action: string): Promise<Admission<SubnetStatus>> {
  const { spec } = subnet;
  const references = new References(world, subnet.metadata.project ?? "");
  const network = await references.find(networkKind, spec.network, "spec.network");
  await findRouteTable(references, subnet);
  if (network && network.spec.subnets !== "custom") {
    references.errors.push({
      path: "spec.network",
      message: `names "${spec.network}", whose one subnet has the whole range`,
      allowed: "a network that was created with spec.subnets: custom",
    });
  }
  references.check(action);
  if (!network) throw new StrataError("Internal", "a network was found and is not there");
  const guardKey = subnetGuardKey(network.metadata.uid);
  const guard = await world.store.get(guardKey);
  const { nextIndex } = (guard?.value ?? { nextIndex: 0 }) as { nextIndex: number };
  const others = await subnetsOf(network, world);
  if (others.length >= maxSubnets) {
    throw conflict(action, {
      path: "spec.network",
      message: `names "${spec.network}", which has ${others.length} subnets already`,
      allowed: `at most ${maxSubnets} in one network`,
    });
  }
  checkCidr(spec.cidr, network, others, action);
  const ipv6Cidr = checkIpv6(spec.ipv6Cidr, nextIndex, network, others, action);
  return {
    status: subnetStatus(spec.cidr, ipv6Cidr, nextIndex),
    writes: [
      ...references.writes(),
      { put: guardKey, value: { nextIndex: nextIndex + 1 }, ifRevision: guard?.revision ?? 0 },
    ],
  };
}

/** The status of a subnet with these ranges: the gateways are their first addresses. */
export function subnetStatus(cidr: string, ipv6Cidr: string, index: number): SubnetStatus {
  const gateway = firstHost(cidr);
  const ipv6Gateway = firstHost(ipv6Cidr);
  return { ipv6Cidr, gateway, ipv6Gateway, index };
}

export function subnetGuardKey(networkUid: string): string {
  return `/allocations/subnets/${networkUid}`;
}

export async function subnetsOf(network: Network, world: World): Promise<Subnet[]> {
  const { name, project } = network.metadata;
  const subnets: Subnet[] = [];
  for await (const subnet of world.scan(subnetKind, project)) {
    if (subnet.spec.network === name) subnets.push(subnet);
  }
  return subnets;
}

async function findRouteTable(references: References, { spec }: Subnet): Promise<void> {
  if (spec.routeTable === undefined) return;
  const path = "spec.routeTable";
  const table = await references.find(routeTableKind, spec.routeTable, path);
  if (!table || table.spec.network === spec.network) return;
  const message = `names "${spec.routeTable}", which is of network "${table.spec.network}"`;
  references.errors.push({ path, message, allowed: `a route table of network "${spec.network}"` });
}

function checkCidr(cidr: string, network: Network, others: readonly Subnet[], action: string): void {
  const range = mustParse(cidr);
  const whole = mustParse(network.status.cidr ?? "");
  const path = "spec.cidr";
  if (!contains(whole, range)) {
    const message = `is ${cidr}, which is outside of network "${network.metadata.name}"`;
    throw invalid(action, [{ path, message, allowed: `a part of ${formatRange(whole)}` }]);
  }
  const taken = others.map((other) => ({ name: other.metadata.name, range: mustParse(other.spec.cidr) }));
  const other = taken.find((one) => overlaps(one.range, range));
  if (!other) return;
  const free = firstFree(
    whole,
    range.prefixLength,
    taken.map((one) => one.range),
  );
  throw conflict(action, {
    path,
    message: `is ${cidr}, which overlaps ${formatRange(other.range)} of subnet "${other.name}"`,
    allowed: free
      ? `${formatRange(free)}, the first that is free`
      : `nothing: no /${range.prefixLength} of the network is free`,
  });
}

/** The wanted /64 if it is free, else the network's one of that index, else the first free one. */
function checkIpv6(
  wanted: string | undefined,
  index: number,
  network: Network,
  others: readonly Subnet[],
  action: string,
): string {
  const whole = mustParse(network.status.ipv6Cidr ?? "");
  const taken = others.map((other) => mustParse(other.status.ipv6Cidr ?? ""));
  const isFree = (range: IpRange) => !taken.some((other) => overlaps(other, range));
  const path = "spec.ipv6Cidr";
  if (wanted !== undefined) {
    const range = mustParse(wanted);
    if (!contains(whole, range)) {
      const message = `is ${wanted}, which is outside of network "${network.metadata.name}"`;
      throw invalid(action, [{ path, message, allowed: `a /64 of ${formatRange(whole)}` }]);
    }
    if (isFree(range)) return wanted;
    const free = firstFree(whole, 64, taken);
    const message = `is ${wanted}, which another subnet of network "${network.metadata.name}" has`;
    throw conflict(action, { path, message, ...(free ? { allowed: formatRange(free) } : {}) });
  }
  const byIndex: IpRange = { family: 6, base: whole.base + (BigInt(index) << 64n), prefixLength: 64 };
  const range = contains(whole, byIndex) && isFree(byIndex) ? byIndex : firstFree(whole, 64, taken);
  if (!range) throw new StrataError("Internal", "a network with 65536 ranges for 64 subnets has none left");
  return formatRange(range);
}

/** The lowest range of that length that overlaps none of the taken ones. */
function firstFree(whole: IpRange, prefixLength: number, taken: readonly IpRange[]): IpRange | undefined {
  const sorted = taken.toSorted((a, b) => (a.base < b.base ? -1 : 1));
  const candidate = { ...whole, prefixLength };
  const size = sizeOf(candidate);
  for (const other of sorted) {
    if (overlaps(other, candidate)) candidate.base = ((lastOf(other) + size) / size) * size;
  }
  return contains(whole, candidate) ? candidate : undefined;
}

/** Whose cards are in it, a few. */
async function cardsIn(subnet: Subnet, world: World): Promise<string[]> {
  const { name, project } = subnet.metadata;
  const users: string[] = [];
  for await (const { metadata, status } of world.scan(instanceKind, project)) {
    if (status.nic?.subnet === name) users.push(`instance "${metadata.name}"`);
    if (users.length > usersInMessage) return users;
  }
  users.push(...(await groupsNaming(subnet, world, (template) => template.subnet)));
  for await (const { metadata, status } of world.scan(networkInterfaceKind, project)) {
    if (status.subnet === name) users.push(`network interface "${metadata.name}"`);
    if (users.length > usersInMessage) return users;
  }
  return users;
}

function firstHost(cidr: string): string {
  const { family, base } = mustParse(cidr);
  return formatIp({ family, value: base + 1n });
}

function mustParse(cidr: string): IpRange {
  const range = parseRange(cidr)?.range;
  if (!range) throw new StrataError("Internal", `the range "${cidr}" of a network or subnet is malformed`);
  return range;
}
