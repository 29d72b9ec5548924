/** All that says who reaches whom in a project, read through the API. */
import type { Client } from "../../client/client.ts";
import { hasCode } from "../../core/errors.ts";
import { addressKind } from "../../kinds/address.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import type { NetworkWorld } from "../../kinds/reachability/world.ts";
import { routeTableKind } from "../../kinds/route-table.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import { subnetKind } from "../../kinds/subnet.ts";

/** `options.project` left out: of all projects that the caller may see. */
export type Scope = { project?: string };

/** The project, and of the projects that its networks are joined with what the caller may see. */
export async function readWorld(client: Client, project: string, signal: AbortSignal): Promise<NetworkWorld> {
  const own = await readProjectWorld(client, { project }, signal);
  const others = new Set(own.peerings.flatMap((peering) => peering.spec.peerProject ?? []));
  others.delete(project);
  const worlds = await Promise.all(
    [...others].map((other) => readProjectWorld(client, { project: other }, signal)),
  );
  return worlds.reduce(joined, own);
}

async function readProjectWorld(client: Client, scope: Scope, signal: AbortSignal): Promise<NetworkWorld> {
  const list = <S, T>(kind: Kind<S, T>) => listVisible(client, kind, scope, signal);
  const [networks, subnets, routeTables, peerings, securityGroups] = await Promise.all([
    list(networkKind),
    list(subnetKind),
    list(routeTableKind),
    list(peeringKind),
    list(securityGroupKind),
  ]);
  const [instances, networkInterfaces, addresses, publishedPorts] = await Promise.all([
    list(instanceKind),
    list(networkInterfaceKind),
    list(addressKind),
    list(publishedPortKind),
  ]);
  return {
    networks,
    subnets,
    routeTables,
    peerings,
    securityGroups,
    instances,
    networkInterfaces,
    addresses,
    publishedPorts,
  };
}

/** Nothing for a project that the caller may not see or that is gone. */
export async function listVisible<S, T>(
  client: Client,
  kind: Kind<S, T>,
  scope: Scope,
  signal: AbortSignal,
): Promise<Resource<S, T>[]> {
  try {
    return (await client.list(kind, scope, { signal })).items;
  } catch (error) {
    if (hasCode(error, "Forbidden", "NotFound")) return [];
    throw error;
  }
}

function joined(a: NetworkWorld, b: NetworkWorld): NetworkWorld {
  return {
    networks: [...a.networks, ...b.networks],
    subnets: [...a.subnets, ...b.subnets],
    routeTables: [...a.routeTables, ...b.routeTables],
    peerings: [...a.peerings, ...b.peerings],
    securityGroups: [...a.securityGroups, ...b.securityGroups],
    instances: [...a.instances, ...b.instances],
    networkInterfaces: [...a.networkInterfaces, ...b.networkInterfaces],
    addresses: [...a.addresses, ...b.addresses],
    publishedPorts: [...a.publishedPorts, ...b.publishedPorts],
  };
}
