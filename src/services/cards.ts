import { StrataError } from "../core/errors.ts";
import { parseRange } from "../core/ip-range.ts";
import type { Metadata } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { securityGroupKind } from "../kinds/security-group.ts";
import { type Subnet, subnetKind } from "../kinds/subnet.ts";
import type { Write } from "../store/store.ts";
import { type Addresses, type Taken, unusable } from "./addresses.ts";
import type { World } from "./hooks.ts";
import { conflict } from "./parse.ts";
import type { References } from "./references.ts";
import { subnetsOf } from "./subnets.ts";

/** What a spec says of one network card: an instance's own one, or a network interface. */
export interface CardSpec {
  network: string;
  subnet?: string | undefined;
  ipAddress?: string | undefined;
  ipv6Address?: string | undefined;
  securityGroups: readonly string[];
}

/** Where a card is to be; undefined parts have an error in the references. */
export interface Place {
  network: Network | undefined;
  subnet: Subnet | undefined;
}

/** Finds all that a card names; errors go to `references`. */
export async function findPlace(spec: CardSpec, references: References, world: World): Promise<Place> {
  const network = await references.find(networkKind, spec.network, "spec.network");
  const subnet = network && (await findSubnet(spec, network, references, world));
  if (subnet) checkFixed(spec, subnet, references);
  return { network, subnet };
}

export async function findGroups(groups: readonly string[], references: References): Promise<void> {
  const seen = new Set<string>();
  for (const [index, name] of groups.entries()) {
    const path = `spec.securityGroups[${index}]`;
    if (seen.has(name)) references.errors.push({ path, message: `names "${name}" a second time` });
    else await references.find(securityGroupKind, name, path);
    seen.add(name);
  }
}

/**
 * The card's addresses, for life. `place` must be without errors.
 * @throws Conflict when somebody has a fixed one, CapacityExceeded.
 */
export async function takeAddresses(
  addresses: Addresses,
  holder: { kind: string; metadata: Metadata },
  spec: CardSpec,
  place: Place,
  action: string,
): Promise<Taken & { subnet: string }> {
  const { network, subnet } = place;
  if (!network || !subnet) throw new StrataError("Internal", "a card was admitted without a subnet");
  const networkUid = network.metadata.uid;
  for (const field of ["ipAddress", "ipv6Address"] as const) {
    const wanted = spec[field];
    const other = wanted === undefined ? undefined : await addresses.holderOf(networkUid, wanted);
    if (!other) continue;
    const owner = `${other.kind === "NetworkInterface" ? "network interface" : "instance"} "${other.name}"`;
    throw conflict(action, {
      path: `spec.${field}`,
      message: `is ${wanted}, which ${owner} has`,
      allowed: "an address that nobody has; leave it out and get one",
    });
  }
  const { name } = subnet.metadata;
  const { project = "", name: holderName, uid } = holder.metadata;
  const source = { networkUid, name, cidr: subnet.spec.cidr, ipv6Cidr: subnet.status.ipv6Cidr };
  const taken = await addresses.take(source, { kind: holder.kind, project, name: holderName, uid }, spec);
  return { ...taken, subnet: name };
}

/** For the commit that removes the card. A network stays as long as addresses of it are taken, so the name still means it. */
export async function releaseAddresses(
  addresses: Addresses,
  card: { network: string; ipAddress?: string | undefined; ipv6Address?: string | undefined },
  project: string,
  world: World,
): Promise<Write[]> {
  const network = await world.find(networkKind, { project, name: card.network });
  return network ? addresses.release(network.metadata.uid, card.ipAddress, card.ipv6Address) : [];
}

async function findSubnet(
  spec: CardSpec,
  network: Network,
  references: References,
  world: World,
): Promise<Subnet | undefined> {
  const path = "spec.subnet";
  const { name: networkName } = network.metadata;
  if (spec.subnet !== undefined) {
    const subnet = await references.find(subnetKind, spec.subnet, path);
    if (!subnet || subnet.spec.network === networkName) return subnet;
    const message = `names "${spec.subnet}", which is of network "${subnet.spec.network}"`;
    references.errors.push({ path, message, allowed: await namesOf(network, world) });
    return undefined;
  }
  if (network.spec.subnets === "auto") return references.find(subnetKind, networkName, path);
  const subnets = await subnetsOf(network, world);
  const [only] = subnets;
  if (only && subnets.length === 1) return references.find(subnetKind, only.metadata.name, path);
  const message = only
    ? `is required, because network "${networkName}" has several subnets`
    : `cannot be found: network "${networkName}" has no subnets yet; create one first`;
  references.errors.push({ path, message, ...(only ? { allowed: await namesOf(network, world) } : {}) });
  return undefined;
}

async function namesOf(network: Network, world: World): Promise<string> {
  const names = (await subnetsOf(network, world)).map((subnet) => subnet.metadata.name);
  return names.length > 0 ? names.join(", ") : `none: network "${network.metadata.name}" has no subnets yet`;
}

function checkFixed(spec: CardSpec, subnet: Subnet, references: References): void {
  for (const [field, cidr] of [
    ["ipAddress", subnet.spec.cidr],
    ["ipv6Address", subnet.status.ipv6Cidr],
  ] as const) {
    const range = parseRange(cidr ?? "")?.range;
    const wanted = spec[field];
    const problem =
      wanted === undefined || !range ? undefined : unusable(wanted, range, subnet.metadata.name);
    if (problem) references.errors.push({ path: `spec.${field}`, ...problem });
  }
}
