import type { Client } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import { jsonEquals } from "../core/json.ts";
import type { Logger } from "../core/logger.ts";
import { type Address, addressKind } from "../kinds/address.ts";
import { type Backup, backupKind } from "../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../kinds/backup-repository.ts";
import { type Certificate, certificateKind } from "../kinds/certificate.ts";
import { type Image, imageKind } from "../kinds/image.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { type KeyPair, keyPairKind } from "../kinds/key-pair.ts";
import { resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { type LoadBalancer, loadBalancerKind } from "../kinds/load-balancer.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { type NetworkInterface, networkInterfaceKind } from "../kinds/network-interface.ts";
import { type Peering, peeringKind } from "../kinds/peering.ts";
import { type PublishedPort, publishedPortKind } from "../kinds/published-port.ts";
import { type RouteTable, routeTableKind } from "../kinds/route-table.ts";
import { type SecurityGroup, securityGroupKind } from "../kinds/security-group.ts";
import { isRollingBack, type Snapshot, snapshotKind } from "../kinds/snapshot.ts";
import { type StoragePool, storagePoolKind } from "../kinds/storage-pool.ts";
import { type Subnet, subnetKind } from "../kinds/subnet.ts";
import { type Volume, volumeKind } from "../kinds/volume.ts";
import { CacheIndex } from "../reconcile/cache.ts";
import { ResourceView, specChanged } from "./resource-view.ts";

/**
 * What the agent knows of the API: instances and images of this host, and all volumes and all of what networks are made
 * of, because what is nobody's may be wanted here.
 */
export interface AgentViews {
  instances: ViewFor<Instance>;
  images: ViewFor<Image>;
  volumes: ViewFor<Volume>;
  snapshots: ViewFor<Snapshot>;
  storagePools: ViewFor<StoragePool>;
  backups: ViewFor<Backup>;
  backupRepositories: ViewFor<BackupRepository>;
  keyPairs: ViewFor<KeyPair>;
  networks: ViewFor<Network>;
  subnets: ViewFor<Subnet>;
  routeTables: ViewFor<RouteTable>;
  peerings: ViewFor<Peering>;
  securityGroups: ViewFor<SecurityGroup>;
  interfaces: ViewFor<NetworkInterface>;
  addresses: ViewFor<Address>;
  publishedPorts: ViewFor<PublishedPort>;
  certificates: ViewFor<Certificate>;
  loadBalancers: ViewFor<LoadBalancer>;
  certificatesByProject: CacheIndex<Certificate>;
  loadBalancersByProject: CacheIndex<LoadBalancer>;
  /** Keys of instances by the key of the network of their own card, and of their image. */
  instancesByNetwork: CacheIndex<Instance>;
  instancesByImage: CacheIndex<Instance>;
  /** Keys of volumes by the uid of their owner. */
  volumesByOwner: CacheIndex<Volume>;
  /** Snapshots that shall be gone back to, by the uid of the instance or volume that they are of. */
  rollbacksByTarget: CacheIndex<Snapshot>;
  /** By the key of the instance that they are wanted for, and of the one that has not let go of them yet. */
  volumesByWish: CacheIndex<Volume>;
  volumesByPlug: CacheIndex<Volume>;
  /** By the key of their network; peerings also by that of the other network. */
  subnetsByNetwork: CacheIndex<Subnet>;
  routeTablesByNetwork: CacheIndex<RouteTable>;
  peeringsByNetwork: CacheIndex<Peering>;
  peeringsByPeer: CacheIndex<Peering>;
  interfacesByNetwork: CacheIndex<NetworkInterface>;
  /** By the key of the instance that they are wanted for, and of the one that they have not left yet. */
  interfacesByWish: CacheIndex<NetworkInterface>;
  interfacesByPlug: CacheIndex<NetworkInterface>;
  addressesByInstance: CacheIndex<Address>;
  publishedPortsByInstance: CacheIndex<PublishedPort>;
}

type ViewFor<R> = R extends Resource<infer S, infer T> ? ResourceView<S, T> : never;

export interface ViewOptions {
  client: Client;
  clock: Clock;
  logger: Logger;
  hostName: string;
}

export function createViews(options: ViewOptions): AgentViews {
  const { client, clock, logger, hostName } = options;
  const parts = { client, clock, logger, relevant: specChanged };
  const whole = <S, T>(kind: Kind<S, T>) => new ResourceView({ ...parts, kind });
  const mine = <S, T>(kind: Kind<S, T>) => new ResourceView({ ...parts, kind, filter: { host: hostName } });
  const instances = mine(instanceKind);
  const volumes = new ResourceView({
    ...parts,
    kind: volumeKind,
    // An instance's start waits until its volumes are recorded as its own.
    relevant: (next, previous) =>
      specChanged(next, previous) || next.status.instance !== previous.status.instance,
  });
  const snapshots = mine(snapshotKind);
  const subnets = whole(subnetKind);
  const routeTables = whole(routeTableKind);
  const peerings = whole(peeringKind);
  const interfaces = new ResourceView({
    ...parts,
    kind: networkInterfaceKind,
    // One host's agent waits for another's to let go of a card.
    relevant: (next, previous) =>
      specChanged(next, previous) || next.status.instance !== previous.status.instance,
  });
  const addresses = whole(addressKind);
  const publishedPorts = whole(publishedPortKind);
  const certificates = new ResourceView({ ...parts, kind: certificateKind, relevant: () => true });
  const loadBalancers = new ResourceView({
    ...parts,
    kind: loadBalancerKind,
    filter: { host: hostName },
    relevant: (next, previous) =>
      specChanged(next, previous) || !jsonEquals(next.status.targets, previous.status.targets),
  });
  return {
    instances,
    volumes,
    certificates,
    loadBalancers,
    certificatesByProject: new CacheIndex(certificates, ({ metadata }) => metadata.project),
    loadBalancersByProject: new CacheIndex(loadBalancers, ({ metadata }) => metadata.project),
    subnets,
    routeTables,
    peerings,
    interfaces,
    addresses,
    publishedPorts,
    snapshots,
    rollbacksByTarget: new CacheIndex(snapshots, (one) =>
      isRollingBack(one) ? (one.status.instanceUid ?? one.status.volumeUid) : undefined,
    ),
    storagePools: whole(storagePoolKind),
    backups: new ResourceView({
      ...parts,
      kind: backupKind,
      filter: { host: hostName },
      relevant: stateChanged,
    }),
    backupRepositories: whole(backupRepositoryKind),
    images: mine(imageKind),
    keyPairs: whole(keyPairKind),
    networks: whole(networkKind),
    securityGroups: whole(securityGroupKind),
    instancesByNetwork: new CacheIndex(instances, networkKeyOf),
    instancesByImage: new CacheIndex(instances, (one) => siblingKey(imageKind, one, one.spec.image)),
    volumesByOwner: new CacheIndex(volumes, (volume) => volume.metadata.owner?.uid),
    volumesByWish: new CacheIndex(volumes, instanceKeyOf),
    volumesByPlug: new CacheIndex(volumes, pluggedInto),
    subnetsByNetwork: new CacheIndex(subnets, networkKeyOf),
    routeTablesByNetwork: new CacheIndex(routeTables, networkKeyOf),
    peeringsByNetwork: new CacheIndex(peerings, networkKeyOf),
    peeringsByPeer: new CacheIndex(peerings, peerKeyOf),
    interfacesByNetwork: new CacheIndex(interfaces, networkKeyOf),
    interfacesByWish: new CacheIndex(interfaces, instanceKeyOf),
    interfacesByPlug: new CacheIndex(interfaces, pluggedInto),
    addressesByInstance: new CacheIndex(addresses, instanceKeyOf),
    publishedPortsByInstance: new CacheIndex(publishedPorts, instanceKeyOf),
  };
}

/** The views themselves, which have to be fed. */
export function feedsOf(
  views: AgentViews,
): readonly Pick<ResourceView<never, never>, "run" | "whenSynced">[] {
  return Object.values(views).filter((view) => view instanceof ResourceView);
}

/** One step of a backup is recorded before the next begins. */
function stateChanged(next: Backup, previous: Backup): boolean {
  return specChanged(next, previous) || next.status.state !== previous.status.state;
}

/** The key of a resource of the same project. */
export function siblingKey(kind: Pick<Kind, "plural" | "scope">, of: Resource, name: string): string {
  return resourceKey(kind, { project: of.metadata.project ?? "", name });
}

/** The key of the network that spec names. */
export function networkKeyOf(resource: Resource<{ network: string }>): string {
  return siblingKey(networkKind, resource, resource.spec.network);
}

/** The key of a peering's other network. */
export function peerKeyOf({ metadata, spec }: Peering): string {
  return resourceKey(networkKind, {
    project: spec.peerProject ?? metadata.project ?? "",
    name: spec.peerNetwork,
  });
}

/** The key of the instance that status names, if it names one. */
function pluggedInto(resource: Resource<unknown, { instance?: string | undefined }>): string | undefined {
  const { instance } = resource.status;
  return instance === undefined ? undefined : siblingKey(instanceKind, resource, instance);
}

/** The key of the instance that spec names, if it names one. */
export function instanceKeyOf(resource: Resource<{ instance?: string | undefined }>): string | undefined {
  const { instance } = resource.spec;
  return instance === undefined ? undefined : siblingKey(instanceKind, resource, instance);
}
