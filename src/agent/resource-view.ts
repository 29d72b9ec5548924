/** What the agent knows of one kind: a cache fed by the watch of the API. */
import type { Client, ListOptions } from "../client/client.ts";
import { createWatchCache } from "../client/watch-cache.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { Cache } from "../reconcile/cache.ts";

export interface ResourceViewOptions<S, T> {
  client: Client;
  kind: Kind<S, T>;
  filter?: ListOptions;
  clock: Clock;
  logger: Logger;
  relevant?: (next: Resource<S, T>, previous: Resource<S, T>) => boolean;
}

export class ResourceView<S, T> extends Cache<Resource<S, T>> {
  readonly #options: ResourceViewOptions<S, T>;

  constructor(options: ResourceViewOptions<S, T>) {
    super(options.relevant);
    this.#options = options;
  }

  find(ref: Ref): Resource<S, T> | undefined {
    return this.get(resourceKey(this.#options.kind, ref));
  }

  keyOf(resource: Resource<S, T>): string {
    return resourceKey(this.#options.kind, resource.metadata as Ref);
  }

  /** Follows the API until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, kind, filter = {}, clock, logger } = this.#options;
    const feed = createWatchCache(client, kind, { ...filter, clock, logger }, signal);
    feed.onChange((key, next) => {
      if (next) this.put(key, next);
      else this.delete(key);
    });
    await feed.synced.then(
      () => this.markSynced(),
      () => {}, // aborted before the first listing
    );
    await feed.done;
  }
}

/** True when what users write, or the wish to delete it, has changed. */
export function specChanged(next: Resource, previous: Resource): boolean {
  return (
    next.metadata.generation !== previous.metadata.generation ||
    next.metadata.deletedAt !== previous.metadata.deletedAt
  );
}
