/** What the agent knows of one kind: a cache fed by listing and watching the API. */
import type { Client, ListOptions } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import { describeError, hasCode } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { backoffMs } from "../reconcile/backoff.ts";
import { Cache } from "../reconcile/cache.ts";

export interface ResourceViewOptions<S, T> {
  client: Client;
  kind: Kind<S, T>;
  filter?: ListOptions;
  clock: Clock;
  random: Random;
  logger: Logger;
  relevant?: (next: Resource<S, T>, previous: Resource<S, T>) => boolean;
}

const reconnectBackoff = { minMs: 50, maxMs: 5_000 };

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

  /** Lists and watches until aborted; reconnects and lists again as needed. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, kind, filter = {}, clock, random, logger } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      try {
        const { items, revision } = await client.list(kind, filter, { signal });
        this.replaceAll(items.map((resource) => [this.keyOf(resource), resource] as const));
        for await (const event of client.watch(kind, { ...filter, after: revision }, signal)) {
          failures = 0;
          if (event.type === "put") this.put(this.keyOf(event.resource), event.resource);
          else if (event.type === "delete") this.delete(resourceKey(kind, event.ref), event.uid);
        }
      } catch (error) {
        if (signal.aborted) return;
        const level = hasCode(error, "Compacted") ? "info" : "warn";
        logger[level](
          { kind: kind.name, error: describeError(error) },
          "a watch of the API ended; listing again",
        );
      }
      if (signal.aborted) return;
      failures++;
      await clock.sleep(backoffMs(reconnectBackoff, failures, random), signal).catch(() => {});
    }
  }
}

/** True when what users write, or the wish to delete it, has changed. */
export function specChanged(next: Resource, previous: Resource): boolean {
  return (
    next.metadata.generation !== previous.metadata.generation ||
    next.metadata.deletedAt !== previous.metadata.deletedAt
  );
}
