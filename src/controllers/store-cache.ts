/** What the controllers know of one kind: a cache fed by listing and watching the store. */
import type { Clock } from "../core/clock.ts";
import { describeError, hasCode, StrataError } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { type Ref, resourceKey, resourcePrefix } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { fromStored, toStored } from "../kinds/stored.ts";
import { backoffMs } from "../reconcile/backoff.ts";
import { Cache } from "../reconcile/cache.ts";
import { type Revision, type Store, storeLimits, type Write } from "../store/store.ts";

export interface StoreCacheOptions<S, T> {
  store: Store;
  kind: Kind<S, T>;
  clock: Clock;
  random: Random;
  logger: Logger;
  relevant?: (next: Resource<S, T>, previous: Resource<S, T>) => boolean;
}

const reconnectBackoff = { minMs: 50, maxMs: 5_000 };

export class StoreCache<S, T> extends Cache<Resource<S, T>> {
  readonly #options: StoreCacheOptions<S, T>;
  readonly #prefix: string;

  constructor(options: StoreCacheOptions<S, T>) {
    super(options.relevant);
    this.#options = options;
    this.#prefix = resourcePrefix(options.kind);
  }

  keyOf(resource: Resource<S, T>): string {
    return resourceKey(this.#options.kind, resource.metadata as Ref);
  }

  /** Lists and watches until aborted; lists again as needed. */
  async run(signal: AbortSignal): Promise<void> {
    const { store, kind, clock, random, logger } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      try {
        const revision = await this.#list();
        for await (const event of store.watch(this.#prefix, revision, signal)) {
          failures = 0;
          if (event.type === "put") this.put(event.key, fromStored(event));
          else this.delete(event.key);
        }
      } catch (error) {
        const level = hasCode(error, "Compacted") ? "info" : "warn";
        if (!signal.aborted) {
          logger[level](
            { kind: kind.name, error: describeError(error) },
            "a watch of the store ended; listing again",
          );
        }
      }
      if (signal.aborted) return;
      failures++;
      await clock.sleep(backoffMs(reconnectBackoff, failures, random), signal).catch(() => {});
    }
  }

  /**
   * Writes the resource as `next` while the store still has the revision known here, with `others` and `writes` in the
   * same commit, and takes it over at once.
   * @throws Conflict
   */
  async replace(
    current: Resource<S, T>,
    next: Resource<S, T>,
    others: readonly { kind: Kind; current: Resource; next: Resource }[] = [],
    writes: readonly Write[] = [],
  ): Promise<void> {
    const { store, kind } = this.#options;
    const resources = [{ kind, current, next }, ...others].map((write) => {
      const put = resourceKey(write.kind as Kind, write.current.metadata as Ref);
      return { put, value: toStored(write.next), ifRevision: write.current.metadata.revision };
    });
    const revision = await store.commit([...resources, ...writes]);
    this.learn(this.keyOf(next), { ...next, metadata: { ...next.metadata, revision } });
  }

  async #list(): Promise<Revision> {
    const { store } = this.#options;
    const found: [string, Resource<S, T>][] = [];
    let after: string | undefined;
    let at: Revision | undefined;
    do {
      const page = await store.list(this.#prefix, {
        limit: storeLimits.pageEntries,
        ...(after === undefined ? {} : { after }),
        ...(at === undefined ? {} : { at }),
      });
      for (const entry of page.entries) found.push([entry.key, fromStored<Resource<S, T>>(entry)]);
      after = page.next;
      at = page.revision;
    } while (after !== undefined);
    this.replaceAll(found);
    if (at === undefined) throw new StrataError("Internal", "a listing of the store has no revision");
    return at;
  }
}
