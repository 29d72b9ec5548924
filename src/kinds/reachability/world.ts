/**
 * Networks with all that says who reaches whom, as the API lists it, and the questions that traces and pictures ask of
 * it. Pure. A world holds one project whole; of other projects only what the reader may see.
 */
import { contains, type IpAddress, parseIp, parseRange } from "../../core/ip-range.ts";
import type { Address } from "../address.ts";
import type { Instance } from "../instance.ts";
import type { Resource } from "../kind.ts";
import type { Network } from "../network.ts";
import type { NetworkInterface } from "../network-interface.ts";
import type { Peering } from "../peering.ts";
import type { PublishedPort } from "../published-port.ts";
import type { RouteTable } from "../route-table.ts";
import type { SecurityGroup } from "../security-group.ts";
import type { Subnet } from "../subnet.ts";

export interface NetworkWorld {
  networks: readonly Network[];
  subnets: readonly Subnet[];
  routeTables: readonly RouteTable[];
  peerings: readonly Peering[];
  securityGroups: readonly SecurityGroup[];
  instances: readonly Instance[];
  networkInterfaces: readonly NetworkInterface[];
  addresses: readonly Address[];
  publishedPorts: readonly PublishedPort[];
}

export const emptyWorld: NetworkWorld = {
  networks: [],
  subnets: [],
  routeTables: [],
  peerings: [],
  securityGroups: [],
  instances: [],
  networkInterfaces: [],
  addresses: [],
  publishedPorts: [],
};

/** A network card with its addresses: an instance's own, or a further one that is plugged in. */
export interface Card {
  project: string;
  network: string;
  subnet: string;
  instance: Instance;
  /** Name of the network interface; absent for the instance's own card. */
  interface?: string;
  macAddress: string;
  ipAddress: string;
  ipv6Address?: string;
  securityGroups: readonly string[];
}

/** Cards that have addresses, in the order of their instances; an instance's own comes first. */
export function cardsOf(world: NetworkWorld): Card[] {
  const further = new Map<string, NetworkInterface[]>();
  for (const one of world.networkInterfaces) {
    if (one.spec.instance === undefined) continue;
    const key = `${projectOf(one)}/${one.spec.instance}`;
    further.set(key, [...(further.get(key) ?? []), one]);
  }
  return world.instances.flatMap((instance) => {
    const own = ownCard(instance);
    const others = further.get(`${projectOf(instance)}/${instance.metadata.name}`) ?? [];
    return [...(own ? [own] : []), ...others.flatMap((one) => furtherCard(instance, one) ?? [])];
  });
}

export function ownCard(instance: Instance): Card | undefined {
  const { nic } = instance.status;
  if (!nic) return undefined;
  return {
    project: projectOf(instance),
    network: nic.network,
    subnet: nic.subnet,
    instance,
    macAddress: nic.macAddress,
    ipAddress: nic.ipAddress,
    ...(nic.ipv6Address === undefined ? {} : { ipv6Address: nic.ipv6Address }),
    securityGroups: instance.spec.securityGroups,
  };
}

function furtherCard(instance: Instance, one: NetworkInterface): Card | undefined {
  const { subnet, macAddress, ipAddress, ipv6Address } = one.status;
  if (subnet === undefined || macAddress === undefined || ipAddress === undefined) return undefined;
  return {
    project: projectOf(one),
    network: one.spec.network,
    subnet,
    instance,
    interface: one.metadata.name,
    macAddress,
    ipAddress,
    ...(ipv6Address === undefined ? {} : { ipv6Address }),
    securityGroups: one.spec.securityGroups,
  };
}

export function projectOf(resource: Pick<Resource, "metadata">): string {
  return resource.metadata.project ?? "";
}

export function cardTitle(card: Card): string {
  const { name } = card.instance.metadata;
  return card.interface === undefined ? name : `${name} (interface ${card.interface})`;
}

/** Undefined: the card has none of this family. */
export function cardAddress(card: Card, family: IpAddress["family"]): IpAddress | undefined {
  const text = family === 4 ? card.ipAddress : card.ipv6Address;
  return text === undefined ? undefined : parseIp(text);
}

/** By project and name. */
export function named<R extends Pick<Resource, "metadata">>(
  resources: readonly R[],
  project: string,
  name: string,
): R | undefined {
  return resources.find((one) => one.metadata.name === name && projectOf(one) === project);
}

/** The ranges that are local to a network. */
export function rangesOf(network: Network): string[] {
  return [network.status.cidr, network.status.ipv6Cidr].filter((one) => one !== undefined);
}

export function isIn(range: string | undefined, address: IpAddress): boolean {
  const parsed = range === undefined ? undefined : parseRange(range)?.range;
  return parsed !== undefined && contains(parsed, address);
}

export function isLocal(network: Network, address: IpAddress): boolean {
  return rangesOf(network).some((range) => isIn(range, address));
}

/** A peering seen from one of its sides. */
export interface PeerLink {
  peering: Peering;
  /** The other side, by name: what it has is only known when the reader may see it. */
  otherProject: string;
  otherName: string;
  other: Network | undefined;
  active: boolean;
}

/** Within a project a peering counts for both of its sides; between projects each side has its own. */
export function peerLinksOf(world: NetworkWorld, network: Network): PeerLink[] {
  const project = projectOf(network);
  const { name } = network.metadata;
  return world.peerings.flatMap((peering) => {
    if (projectOf(peering) !== project || peering.metadata.deletedAt !== undefined) return [];
    const { spec } = peering;
    const peerProject = spec.peerProject ?? project;
    const isFirst = spec.network === name;
    if (!isFirst && !(peerProject === project && spec.peerNetwork === name)) return [];
    const otherProject = isFirst ? peerProject : project;
    const otherName = isFirst ? spec.peerNetwork : spec.network;
    const other = named(world.networks, otherProject, otherName);
    return [{ peering, otherProject, otherName, other, active: peering.status.state === "active" }];
  });
}

/** `db`, or `PROJECT/db` in another project. */
export function nameSeenFrom(project: string, other: { project: string; name: string }): string {
  return other.project === project ? other.name : `${other.project}/${other.name}`;
}
