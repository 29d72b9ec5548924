import { hostKind } from "../src/kinds/host.ts";
import { type Image, imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import type { Kind, Resource } from "../src/kinds/kind.ts";
import { networkKind } from "../src/kinds/network.ts";
import { type NetworkInterface, networkInterfaceKind } from "../src/kinds/network-interface.ts";
import { projectKind } from "../src/kinds/project.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import type { Services } from "../src/services/services.ts";
import { unsettledNetworks } from "./settled-networks.ts";
import type { SimulatedHost } from "./simulated-host.ts";

/** What is not as wanted: empty once the cluster is at rest. */
export async function unsettled(services: Services, hosts: readonly SimulatedHost[]): Promise<string[]> {
  const list = async <R extends Resource>(kind: unknown) =>
    (await services.resources.list(systemPrincipal, kind as Kind, { limit: 1000 })).items as R[];
  const [instances, images, networks, volumes, projects, interfaces, machines] = await Promise.all([
    list<Instance>(instanceKind),
    list<Image>(imageKind),
    list(networkKind),
    list(volumeKind),
    list(projectKind),
    list<NetworkInterface>(networkInterfaceKind),
    list<Resource<unknown, { state: string }>>(hostKind),
  ]);
  const problems: string[] = [];
  for (const resource of [...instances, ...images, ...networks, ...volumes, ...projects]) {
    const { name, deletedAt } = resource.metadata;
    if (deletedAt !== undefined) problems.push(`${resource.kind} ${name} is still being deleted`);
  }
  for (const machine of machines) {
    if (machine.status.state !== "ready") problems.push(`host ${machine.metadata.name} is not ready`);
  }
  for (const image of images) {
    const waits = image.status.host === undefined;
    if (image.status.state !== "ready" && !waits)
      problems.push(`image ${image.metadata.name} is ${image.status.state}`);
  }
  for (const instance of instances) problems.push(...instanceProblems(instance, hosts));
  problems.push(...(await unsettledNetworks(services, { instances, hosts })));
  for (const host of hosts) problems.push(...leaks(host, instances, volumes, networks, interfaces));
  return problems;
}

function instanceProblems(instance: Instance, hosts: readonly SimulatedHost[]): string[] {
  const { spec, status, metadata } = instance;
  const told = `instance ${metadata.name} (${metadata.uid}) is ${status.state} (${status.reason}: ${status.message})`;
  const host = hosts.find(({ name }) => name === status.host);
  const guest = host?.machine.world.guests.get(metadata.uid);
  const ready = status.conditions.find(({ type }) => type === "Ready")?.status === "true";
  if (!host) return status.state === "pending" ? [] : [told];
  if (status.imageDigest !== undefined && spec.rebuilds > 0) {
    const root = guest?.spec.root;
    const made = root?.type === "disk" || root?.type === "tree" ? (root.generation ?? 0) : -1;
    if (status.observedRebuilds !== spec.rebuilds || made !== spec.rebuilds)
      return [`${told}, and its root was made ${made} times anew of ${spec.rebuilds}`];
  }
  if (spec.power === "stopped") {
    return status.state === "stopped" && guest?.state !== "running" ? [] : [told];
  }
  const leftByPolicy = status.reason === "PoweredOff" || status.reason === "Crashed";
  if (leftByPolicy && ["stopped", "failed"].includes(status.state) && spec.restartPolicy !== "always") {
    return guest?.state === "running" ? [`${told}, and its guest runs`] : [];
  }
  if (status.state !== "running" || !ready) return [told];
  if (guest?.state !== "running") return [`${told}, and its guest does not run`];
  const inForce = host.machine.cards().some(({ card }) => card.uid === metadata.uid);
  return inForce ? [] : [`${told}, and its network card is not in force`];
}

function leaks(
  { name, machine }: SimulatedHost,
  instances: readonly Instance[],
  volumes: readonly Resource[],
  networks: readonly Resource[],
  interfaces: readonly Resource[],
): string[] {
  const here = new Set(
    instances.filter(({ status }) => status.host === name).map(({ metadata }) => metadata.uid as string),
  );
  const known = (resources: readonly Resource[]) =>
    new Set(resources.map(({ metadata }) => metadata.uid as string));
  const knownVolumes = known(volumes);
  const knownNetworks = known(networks);
  const strangers = (what: string, uids: Iterable<string>, known: ReadonlySet<string>) =>
    [...uids].filter((uid) => !known.has(uid)).map((uid) => `${what} ${uid} is left on ${name}`);
  return [
    ...strangers("guest", machine.world.guests.keys(), here),
    ...strangers("disk", machine.roots.keys(), knownVolumes),
    ...strangers("network", machine.bridges.keys(), knownNetworks),
    ...strangers(
      "network card",
      machine.cards().map(({ card }) => card.uid),
      new Set([...here, ...known(interfaces)]),
    ),
  ];
}
