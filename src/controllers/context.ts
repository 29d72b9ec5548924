import type { Clock } from "../core/clock.ts";
import type { JsonObject } from "../core/json.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import type { Backup } from "../kinds/backup.ts";
import type { BackupSchedule } from "../kinds/backup-schedule.ts";
import type { Certificate } from "../kinds/certificate.ts";
import type { Event } from "../kinds/event.ts";
import type { Group } from "../kinds/group.ts";
import type { Host } from "../kinds/host.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Metadata, Resource } from "../kinds/kind.ts";
import type { Lease } from "../kinds/lease.ts";
import type { LoadBalancer } from "../kinds/load-balancer.ts";
import type { Network } from "../kinds/network.ts";
import type { Project } from "../kinds/project.ts";
import type { ScalingDecision } from "../kinds/scaling-decision.ts";
import type { Token } from "../kinds/token.ts";
import type { MetricStore } from "../metrics/metric-store.ts";
import type { Store } from "../store/store.ts";
import type { StoreCache } from "./store-cache.ts";

/** The verbs of the API that controllers use, with the authority of the system. */
export interface ControllerVerbs {
  /** Absent (resource or finalizer) is success. @throws Conflict when it must stay for now. */
  removeFinalizer(kind: Kind, ref: Ref, uid: string, finalizer: string): Promise<void>;
  /** The resource as it waits for its finalizers; undefined when it is gone. @throws NotFound */
  delete(kind: Kind, ref: Ref): Promise<Resource | undefined>;
  /** Tells people what happened to a resource. Never throws. */
  recordEvent(
    subject: Resource,
    event: Pick<Event["spec"], "severity" | "reason" | "message">,
  ): Promise<void>;
  /** Something that goes with its owner, where it has one. @throws AlreadyExists, and what the kind's admission throws. */
  create<S, T>(kind: Kind<S, T>, draft: NewResource, origin: NewOrigin): Promise<Resource<S, T>>;
  /** Merge patch of the spec, admitted as a user's. @throws NotFound, and what the kind's admission throws. */
  patchSpec(kind: Kind, ref: Ref, patch: JsonObject): Promise<unknown>;
  /** Merge patch of the status. @throws NotFound also when another resource has its name. */
  patchStatus<S, T>(kind: Kind<S, T>, ref: Ref, uid: string, patch: JsonObject): Promise<Resource<S, T>>;
}

export interface NewResource {
  name: string;
  project: string;
  labels: Record<string, string>;
  spec: unknown;
}

export interface NewOrigin {
  owner?: NonNullable<Metadata["owner"]>;
  /** Merged into the status that it starts with. */
  status: JsonObject;
}

/** What the controllers share. */
export interface ControllerContext {
  store: Store;
  metrics: MetricStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  caches: ControllerCaches;
  verbs: ControllerVerbs;
}

export interface ControllerCaches {
  instances: CacheFor<Instance>;
  groups: CacheFor<Group>;
  loadBalancers: CacheFor<LoadBalancer>;
  scalingDecisions: CacheFor<ScalingDecision>;
  images: CacheFor<Image>;
  hosts: CacheFor<Host>;
  leases: CacheFor<Lease>;
  projects: CacheFor<Project>;
  tokens: CacheFor<Token>;
  events: CacheFor<Event>;
  certificates: CacheFor<Certificate>;
  networks: CacheFor<Network>;
  backups: CacheFor<Backup>;
  backupSchedules: CacheFor<BackupSchedule>;
}

type CacheFor<R> = R extends Resource<infer S, infer T> ? StoreCache<S, T> : never;
