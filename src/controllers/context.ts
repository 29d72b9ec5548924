import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import type { Event } from "../kinds/event.ts";
import type { Host } from "../kinds/host.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { Lease } from "../kinds/lease.ts";
import type { LoadBalancer } from "../kinds/load-balancer.ts";
import type { Network } from "../kinds/network.ts";
import type { Project } from "../kinds/project.ts";
import type { Token } from "../kinds/token.ts";
import type { MetricStore } from "../metrics/metric-store.ts";
import type { Store } from "../store/store.ts";
import type { StoreCache } from "./store-cache.ts";

/** The verbs of the API that controllers use, with the authority of the system. */
export interface ControllerVerbs {
  /** Absent (resource or finalizer) is success. @throws Conflict when it must stay for now. */
  removeFinalizer(kind: Kind, ref: Ref, uid: string, finalizer: string): Promise<void>;
  /** @throws NotFound */
  delete(kind: Kind, ref: Ref): Promise<void>;
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
  images: CacheFor<Image>;
  hosts: CacheFor<Host>;
  leases: CacheFor<Lease>;
  projects: CacheFor<Project>;
  tokens: CacheFor<Token>;
  events: CacheFor<Event>;
  loadBalancers: CacheFor<LoadBalancer>;
  networks: CacheFor<Network>;
}

type CacheFor<R> = R extends Resource<infer S, infer T> ? StoreCache<S, T> : never;
