/**
 * The verbs on kinds, between the edges (API, facades) that translate and the store that keeps. Every change a user
 * can cause passes here: authorize, parse, validate, admit against quota and capacity, commit. Edges decide nothing;
 * the store knows no kinds.
 */
import type { Clock } from "../core/clock.ts";
import { hasCode } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind } from "../kinds/kind.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { tokenKind } from "../kinds/token.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { Store } from "../store/store.ts";
import { Addresses } from "./addresses.ts";
import { Capacity } from "./capacity.ts";
import { createRecordEvent, type RecordEvent } from "./events.ts";
import type { KindHooks } from "./hooks.ts";
import { hostHooks } from "./hosts.ts";
import { pruneIdempotencyKeys } from "./idempotency.ts";
import { imageHooks } from "./images.ts";
import { instanceHooks, volumeHooks } from "./instances.ts";
import { KeyedLock } from "./keyed-lock.ts";
import { networkHooks } from "./networks.ts";
import { systemPrincipal } from "./principal.ts";
import { defaultProject, projectHooks } from "./projects.ts";
import { Ranges } from "./ranges.ts";
import { Resources } from "./resources.ts";
import { Tokens, tokenHooks } from "./tokens.ts";
import type { Uploads } from "./uploads.ts";
import { createWorld } from "./world.ts";

export interface ServicesOptions {
  store: Store;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Where networks without a range of their own get one: a /24 each. Default: defaultNetworkPool. */
  networkPool?: string;
  /** Absent: no uploads are taken, and images may name any. */
  uploads?: Uploads;
}

export interface Services {
  readonly resources: Resources;
  readonly tokens: Tokens;
  readonly uploads: Uploads | undefined;
  readonly recordEvent: RecordEvent;
  /** Makes the project `default` unless it is there, and goes on with deletions that a stop cut short. Idempotent. */
  ensureDefaults(): Promise<void>;
  /** Forgets what has lapsed: idempotency keys, uploads. To be called every few minutes. */
  prune(): Promise<void>;
}

export function createServices(options: ServicesOptions): Services {
  const { store, clock, random, logger } = options;
  const world = createWorld(store, clock, random);
  const resources = new Resources(world, new KeyedLock(), hooksOf(options));
  return {
    resources,
    uploads: options.uploads,
    tokens: new Tokens(world, resources),
    recordEvent: createRecordEvent({ resources, clock, random, logger }),
    async ensureDefaults() {
      try {
        await resources.create(systemPrincipal, projectKind, { name: defaultProject });
      } catch (error) {
        if (!hasCode(error, "AlreadyExists")) throw error;
      }
      for await (const project of world.scan(projectKind, undefined)) {
        if (project.metadata.deletedAt === undefined) continue;
        await resources.delete(systemPrincipal, projectKind, { name: project.metadata.name });
      }
    },
    async prune() {
      await pruneIdempotencyKeys(store, clock);
      await options.uploads?.prune(() => world.scan(imageKind, undefined));
    },
  };
}

function hooksOf(options: ServicesOptions): ReadonlyMap<string, KindHooks> {
  const { store, clock, random } = options;
  const addresses = new Addresses(store, random);
  const ranges = new Ranges(store, options.networkPool);
  const capacity = new Capacity(clock);
  const hooks: [Pick<Kind, "name">, KindHooks][] = [
    [projectKind, projectHooks(ranges) as KindHooks],
    [networkKind, networkHooks(ranges, addresses) as KindHooks],
    [imageKind, imageHooks(options.uploads) as KindHooks],
    [instanceKind, instanceHooks(addresses, capacity) as KindHooks],
    [volumeKind, volumeHooks as KindHooks],
    [tokenKind, tokenHooks() as KindHooks],
    [hostKind, hostHooks(() => capacity.invalidate()) as KindHooks],
  ];
  return new Map(hooks.map(([kind, own]) => [kind.name, own]));
}
