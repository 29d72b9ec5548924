import type { CardPolicy } from "../src/host/networks/networks.ts";
import { type Address, addressKind } from "../src/kinds/address.ts";
import type { Instance } from "../src/kinds/instance.ts";
import type { Kind, Resource } from "../src/kinds/kind.ts";
import { type NetworkInterface, networkInterfaceKind } from "../src/kinds/network-interface.ts";
import { type PublishedPort, publishedPortKind } from "../src/kinds/published-port.ts";
import { securityGroupKind } from "../src/kinds/security-group.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import type { Services } from "../src/services/services.ts";
import type { SimulatedHost } from "./simulated-host.ts";

interface Cluster {
  instances: readonly Instance[];
  hosts: readonly SimulatedHost[];
}

/** What of cards, groups, published ports and addresses is not as wanted. */
export async function unsettledNetworks(services: Services, cluster: Cluster): Promise<string[]> {
  const list = async <R extends Resource>(kind: unknown) =>
    (await services.resources.list(systemPrincipal, kind as Kind, { limit: 1000 })).items as R[];
  const [interfaces, addresses, ports, groups] = await Promise.all([
    list<NetworkInterface>(networkInterfaceKind),
    list<Address>(addressKind),
    list<PublishedPort>(publishedPortKind),
    list(securityGroupKind),
  ]);
  return [
    ...interfaces.flatMap((card) => interfaceProblems(card, cluster)),
    ...cluster.instances.flatMap((instance) => ownCardProblems(instance, groups, cluster)),
    ...addresses.flatMap((address) => publishedProblems(address, "free", "bound", cluster)),
    ...ports.flatMap((port) => publishedProblems(port, "pending", "active", cluster)),
    ...strayPublications(addresses, ports, cluster),
  ];
}

function placeOf(resource: Resource, name: string | undefined, { instances, hosts }: Cluster) {
  const instance = instances.find(
    ({ metadata }) => metadata.name === name && metadata.project === resource.metadata.project,
  );
  const host = instance && hosts.find((one) => one.name === instance.status.host);
  return instance && host ? { instance, host } : undefined;
}

function interfaceProblems(card: NetworkInterface, cluster: Cluster): string[] {
  const { metadata, status, spec } = card;
  const told = `interface ${metadata.name} (${metadata.uid}) is ${status.state} (${status.message})`;
  const port = `n-${metadata.uid.slice(0, 12)}`;
  const place = placeOf(card, spec.instance, cluster);
  const inForce = cluster.hosts.filter(({ machine }) => hasCard(machine.cards(), metadata.uid));
  const plugged = cluster.hosts.flatMap(({ machine }) =>
    [...machine.world.guests].filter(
      ([, guest]) => guest.state === "running" && guest.spec.nics.some((nic) => nic.port === port),
    ),
  );
  if (!place) {
    const problems = status.state === "available" ? [] : [`${told}, and nobody has it`];
    if (inForce.length > 0 || plugged.length > 0)
      problems.push(`${told}, and it is still in force or plugged in`);
    return problems;
  }
  const { instance, host } = place;
  if (status.state !== "attached" || status.instance !== instance.metadata.name) return [told];
  if (inForce.length !== 1 || inForce[0] !== host)
    return [`${told}, and it is not in force on ${host.name} alone`];
  const runs = host.machine.world.guests.get(instance.metadata.uid)?.state === "running";
  const where = plugged.map(([uid]) => uid).join();
  return where === (runs ? instance.metadata.uid : "") ? [] : [`${told}, and it is plugged into "${where}"`];
}

function ownCardProblems(instance: Instance, groups: readonly Resource[], { hosts }: Cluster): string[] {
  const { metadata, spec, status } = instance;
  const host = hosts.find(({ name }) => name === status.host);
  const card = host?.machine.cards().find((one) => one.card.uid === metadata.uid)?.card;
  if (!card) return [];
  const wanted = groups
    .filter(
      (group) =>
        group.metadata.project === metadata.project && spec.securityGroups.includes(group.metadata.name),
    )
    .map((group) => group.metadata.uid as string);
  const same = wanted.length === card.groups.length && wanted.every((uid) => card.groups.includes(uid));
  return same ? [] : [`the card of ${metadata.name} has other groups than it should`];
}

function publishedProblems(
  resource: Address | PublishedPort,
  idle: string,
  active: string,
  cluster: Cluster,
): string[] {
  const { metadata, spec, status } = resource;
  const place = placeOf(resource, spec.instance, cluster);
  const expected = place ? active : idle;
  // What waits for an instance that has no host yet is on its way.
  const waits = !place && spec.instance !== undefined;
  if (status.state === expected || waits) return [];
  return [`${resource.kind} ${metadata.name} is ${status.state}, not ${expected} (${status.message})`];
}

/** What leads somewhere on a host must be wanted there. */
function strayPublications(
  addresses: readonly Address[],
  ports: readonly PublishedPort[],
  cluster: Cluster,
): string[] {
  const wanted = new Set<string>();
  for (const address of addresses) {
    const place = placeOf(address, address.spec.instance, cluster);
    if (place)
      wanted.add(`${place.host.name} ${address.status.ipAddress} ${place.instance.status.nic?.ipAddress}`);
  }
  for (const port of ports) {
    const place = placeOf(port, port.spec.instance, cluster);
    if (place) wanted.add(`${place.host.name} ${port.spec.port} ${place.instance.status.nic?.ipAddress}`);
  }
  const found = cluster.hosts.flatMap(({ name, machine }) =>
    [...machine.bridges.values()].flatMap(({ policy }) => [
      ...policy.addresses.map((one) => `${name} ${one.address} ${one.ipAddress}`),
      ...policy.publishedPorts.map((one) => `${name} ${one.port} ${one.ipAddress}`),
    ]),
  );
  return [
    ...found.filter((one) => !wanted.has(one)).map((one) => `${one} is published, and nobody wants it`),
    ...[...wanted].filter((one) => !found.includes(one)).map((one) => `${one} is wanted, and not published`),
  ];
}

function hasCard(cards: readonly { card: CardPolicy }[], uid: string): boolean {
  return cards.some(({ card }) => card.uid === uid);
}
