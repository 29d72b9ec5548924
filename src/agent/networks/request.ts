import { createHash } from "node:crypto";
import { encodeBase32 } from "../../core/ids.ts";
import type {
  NetworkRequest,
  PeeringRequest,
  RouteRequest,
  SubnetRequest,
} from "../../host/networks/networks.ts";
import type { Network } from "../../kinds/network.ts";
import type { Peering } from "../../kinds/peering.ts";
import type { RouteTable } from "../../kinds/route-table.ts";
import type { Subnet } from "../../kinds/subnet.ts";

/** The resources that make a network's structure. */
export interface NetworkStructure {
  network: Network;
  subnets: readonly Subnet[];
  routeTables: readonly RouteTable[];
  /** All that join it to another network, whichever of the two they name first. */
  peerings: readonly PeeringOfNetwork[];
}

export interface PeeringOfNetwork {
  peering: Peering;
  other: Network | undefined;
}

/** What the host is asked for; undefined while the network has no range. The same for the same resources in any order. */
export function networkRequest(structure: NetworkStructure): NetworkRequest | undefined {
  const { network } = structure;
  const { metadata, spec, status } = network;
  if (status.cidr === undefined) return undefined;
  const peerings = peeringRequests(structure);
  const known = new Set(peerings.map(({ uid }) => uid));
  return {
    uid: metadata.uid,
    cidr: status.cidr,
    ...(status.ipv6Cidr === undefined ? {} : { ipv6Cidr: status.ipv6Cidr }),
    domain: domainOf(network),
    ...(spec.mtu === undefined ? {} : { mtu: spec.mtu }),
    hostRoute: status.hostRoute,
    internet: spec.internet,
    subnets: subnetRequests(structure, known),
    peerings,
  };
}

export function domainOf({ metadata, status }: Network): string {
  return status.domain ?? `${metadata.project ?? "default"}.internal`;
}

/**
 * One name for what joins two networks, the same seen from both sides: between projects there are two resources for
 * it, one a side.
 */
export function peeringUid(oneNetwork: string, otherNetwork: string): string {
  const pair = [oneNetwork, otherNetwork].sort().join(" ");
  return encodeBase32(createHash("sha256").update(pair).digest().subarray(0, 10));
}

function peeringRequests({ network, peerings }: NetworkStructure): PeeringRequest[] {
  const requests = new Map<string, PeeringRequest>();
  for (const { peering, other } of peerings) {
    if (peering.status.state !== "active" || !other || other.metadata.deletedAt !== undefined) continue;
    const ranges = [other.status.cidr, other.status.ipv6Cidr].filter((range) => range !== undefined);
    const uid = peeringUid(network.metadata.uid, other.metadata.uid);
    requests.set(uid, { uid, network: other.metadata.uid, ranges });
  }
  return [...requests.values()].sort((a, b) => (a.uid < b.uid ? -1 : 1));
}

function subnetRequests(structure: NetworkStructure, peerings: ReadonlySet<string>): SubnetRequest[] {
  const tables = new Map(structure.routeTables.map((table) => [table.metadata.name, table]));
  const requests = structure.subnets.flatMap(({ metadata, spec, status }) => {
    const { index, gateway, ipv6Cidr, ipv6Gateway } = status;
    if (index === undefined || gateway === undefined) return [];
    const table = spec.routeTable === undefined ? undefined : tables.get(spec.routeTable);
    const request: SubnetRequest = {
      name: metadata.name,
      index,
      cidr: spec.cidr,
      gateway,
      ...(ipv6Cidr === undefined ? {} : { ipv6Cidr }),
      ...(ipv6Gateway === undefined ? {} : { ipv6Gateway }),
      ...(table ? { routes: routeRequests(table, structure, peerings) } : {}),
    };
    return [request];
  });
  return requests.sort((a, b) => a.index - b.index);
}

/** A route by a peering that is not active leads nowhere, rather than by a wider one to somebody else. */
function routeRequests(
  table: RouteTable,
  { network, peerings }: NetworkStructure,
  active: ReadonlySet<string>,
): RouteRequest[] {
  const { project } = table.metadata;
  return table.spec.routes.map(({ destination, target, via }) => {
    if (target !== "peering") return { destination, target };
    const named = peerings.find(
      ({ peering }) => peering.metadata.name === via && peering.metadata.project === project,
    );
    const uid = named?.other && peeringUid(network.metadata.uid, named.other.metadata.uid);
    return { destination, target: uid !== undefined && active.has(uid) ? { peering: uid } : "none" };
  });
}
