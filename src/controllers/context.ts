import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import type { Host } from "../kinds/host.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { Resource } from "../kinds/kind.ts";
import type { Lease } from "../kinds/lease.ts";
import type { Project } from "../kinds/project.ts";
import type { Token } from "../kinds/token.ts";
import type { Store } from "../store/store.ts";
import type { StoreCache } from "./store-cache.ts";

/** What the controllers share. */
export interface ControllerContext {
  store: Store;
  clock: Clock;
  random: Random;
  logger: Logger;
  caches: ControllerCaches;
}

export interface ControllerCaches {
  instances: CacheFor<Instance>;
  images: CacheFor<Image>;
  hosts: CacheFor<Host>;
  leases: CacheFor<Lease>;
  projects: CacheFor<Project>;
  tokens: CacheFor<Token>;
}

type CacheFor<R> = R extends Resource<infer S, infer T> ? StoreCache<S, T> : never;
