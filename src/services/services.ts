/**
 * The verbs on kinds, between the edges (API, facades) that translate and the store that keeps. Every change a user
 * can cause passes here: authorize, parse, validate, admit against quota and capacity, commit. Edges decide nothing;
 * the store knows no kinds.
 */
import type { Clock } from "../core/clock.ts";
import { hasCode } from "../core/errors.ts";
import { KeyedLock } from "../core/keyed-lock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { addressKind } from "../kinds/address.ts";
import { backupKind } from "../kinds/backup.ts";
import { backupRepositoryKind } from "../kinds/backup-repository.ts";
import { backupScheduleKind } from "../kinds/backup-schedule.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { groupKind } from "../kinds/group.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { networkKind } from "../kinds/network.ts";
import { networkInterfaceKind } from "../kinds/network-interface.ts";
import { peeringKind } from "../kinds/peering.ts";
import { projectKind } from "../kinds/project.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { defaultSecurityGroup, securityGroupKind } from "../kinds/security-group.ts";
import { snapshotKind } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { subnetKind } from "../kinds/subnet.ts";
import { tokenKind } from "../kinds/token.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { MetricStore } from "../metrics/metric-store.ts";
import type { Store } from "../store/store.ts";
import { Addresses } from "./addresses.ts";
import { backupRepositoryHooks, type RepositorySecrets, repositorySecrets } from "./backup-repositories.ts";
import { backupHooks, backupScheduleHooks } from "./backups.ts";
import { Capacity } from "./capacity.ts";
import { certificateHooks, certificateMaterial } from "./certificates.ts";
import { createRecordEvent, type RecordEvent } from "./events.ts";
import { floatingAddressHooks } from "./floating-addresses.ts";
import { groupHooks, keyPairHooks } from "./groups.ts";
import type { KindHooks, World } from "./hooks.ts";
import { hostHooks } from "./hosts.ts";
import { pruneIdempotencyKeys } from "./idempotency.ts";
import { imageHooks } from "./images.ts";
import { instanceHooks } from "./instances.ts";
import { loadBalancerHooks } from "./load-balancers.ts";
import { Metrics } from "./metrics.ts";
import { networkInterfaceHooks } from "./network-interfaces.ts";
import { networkHooks } from "./networks.ts";
import { peeringHooks } from "./peerings.ts";
import { type Principal, systemPrincipal } from "./principal.ts";
import { defaultProject, projectHooks } from "./projects.ts";
import { publishedPortHooks } from "./published-ports.ts";
import { Ranges } from "./ranges.ts";
import { pruneClosed } from "./references.ts";
import { Resources } from "./resources.ts";
import { routeTableHooks } from "./route-tables.ts";
import { defaultGroupSpec, securityGroupHooks } from "./security-groups.ts";
import { snapshotHooks } from "./snapshots.ts";
import { storagePoolHooks } from "./storage-pools.ts";
import { subnetHooks } from "./subnets.ts";
import { Tokens, tokenHooks } from "./tokens.ts";
import { upgradeNetworks } from "./upgrade.ts";
import type { Uploads } from "./uploads.ts";
import { volumeHooks } from "./volumes.ts";
import { createWorld } from "./world.ts";

export interface ServicesOptions {
  store: Store;
  metrics: MetricStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Where networks without a range of their own get one: a /24 each. Default: defaultNetworkPool. */
  networkPool?: string;
  /** Where floating addresses come from. Default: defaultAddressPool. */
  addressPool?: string;
  /** TCP ports of the host that the host itself answers on: they cannot be published. Asked anew every time. */
  reservedPorts?: () => readonly number[];
  /** Absent: no uploads are taken, and images may name any. */
  uploads?: Uploads;
}

export interface Services {
  readonly resources: Resources;
  readonly tokens: Tokens;
  readonly metrics: Metrics;
  readonly uploads: Uploads | undefined;
  readonly recordEvent: RecordEvent;
  /** For agents: what a certificate serves with; undefined while there is nothing. @throws Forbidden */
  certificateMaterial(
    principal: Principal,
    ref: Ref,
  ): Promise<{ chain: string; privateKey: string } | undefined>;
  /** For agents: what opens a backup repository. @throws Forbidden, NotFound */
  repositorySecrets(principal: Principal, ref: Ref): Promise<RepositorySecrets>;
  /** Makes the project `default` and the projects' security groups `default` unless they are there, takes over what an older version stored, and goes on with deletions that a stop cut short. Idempotent. */
  ensureDefaults(): Promise<void>;
  /** Of the store, for the exposition. */
  revision(): Promise<number>;
  /** Forgets what has lapsed: idempotency keys, uploads, old samples. To be called every few minutes. */
  prune(): Promise<void>;
}

export function createServices(options: ServicesOptions): Services {
  const { store, clock, random, logger } = options;
  const world = createWorld(store, clock, random);
  const resources = new Resources(world, new KeyedLock(), hooksOf(options));
  const metrics = new Metrics(world, resources, options.metrics);
  return {
    resources,
    metrics,
    revision: () => store.revision(),
    uploads: options.uploads,
    tokens: new Tokens(world, resources),
    certificateMaterial: (principal, ref) => certificateMaterial(principal, ref, world),
    repositorySecrets: (principal, ref) => repositorySecrets(principal, ref, world),
    recordEvent: createRecordEvent({ resources, clock, random, logger }),
    async ensureDefaults() {
      await upgradeNetworks(world);
      try {
        await resources.create(systemPrincipal, projectKind, { name: defaultProject });
      } catch (error) {
        if (!hasCode(error, "AlreadyExists")) throw error;
      }
      for await (const project of world.scan(projectKind, undefined)) {
        if (project.metadata.deletedAt === undefined) {
          await ensureDefaultGroup(resources, world, project.metadata.name);
          continue;
        }
        await resources.delete(systemPrincipal, projectKind, { name: project.metadata.name });
      }
    },
    async prune() {
      await pruneIdempotencyKeys(store, clock);
      await pruneClosed(store, clock.now());
      metrics.prune();
      await options.uploads?.prune(() => world.scan(imageKind, undefined));
    },
  };
}

/** For projects from before there were security groups. */
async function ensureDefaultGroup(resources: Resources, world: World, project: string): Promise<void> {
  const ref = { project, name: defaultSecurityGroup };
  if (await world.find(securityGroupKind, ref)) return;
  try {
    await resources.create(systemPrincipal, securityGroupKind, { ...ref, spec: defaultGroupSpec() });
  } catch (error) {
    if (!hasCode(error, "AlreadyExists")) throw error;
  }
}

function hooksOf(options: ServicesOptions): ReadonlyMap<string, KindHooks> {
  const { store, clock, random } = options;
  const addresses = new Addresses(store, random);
  const ranges = new Ranges(store, options.networkPool);
  const capacity = new Capacity(clock);
  const hooks: [Pick<Kind, "name">, KindHooks][] = [
    [projectKind, projectHooks(ranges) as KindHooks],
    [networkKind, networkHooks(ranges, addresses) as KindHooks],
    [subnetKind, subnetHooks as KindHooks],
    [routeTableKind, routeTableHooks as KindHooks],
    [peeringKind, peeringHooks as KindHooks],
    [securityGroupKind, securityGroupHooks as KindHooks],
    [networkInterfaceKind, networkInterfaceHooks(addresses) as KindHooks],
    [addressKind, floatingAddressHooks(store, options.addressPool) as KindHooks],
    [publishedPortKind, publishedPortHooks(options.reservedPorts ?? (() => [])) as KindHooks],
    [certificateKind, certificateHooks as KindHooks],
    [loadBalancerKind, loadBalancerHooks(options.reservedPorts ?? (() => [])) as KindHooks],
    [imageKind, imageHooks(options.uploads) as KindHooks],
    [instanceKind, instanceHooks(addresses, capacity) as KindHooks],
    [storagePoolKind, storagePoolHooks as KindHooks],
    [volumeKind, volumeHooks as KindHooks],
    [snapshotKind, snapshotHooks as KindHooks],
    [backupRepositoryKind, backupRepositoryHooks as KindHooks],
    [backupKind, backupHooks as KindHooks],
    [backupScheduleKind, backupScheduleHooks as KindHooks],
    [groupKind, groupHooks(capacity) as KindHooks],
    [keyPairKind, keyPairHooks as KindHooks],
    [tokenKind, tokenHooks() as KindHooks],
    [hostKind, hostHooks(() => capacity.invalidate()) as KindHooks],
  ];
  return new Map(hooks.map(([kind, own]) => [kind.name, own]));
}
