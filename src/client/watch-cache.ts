import type { Clock } from "../core/clock.ts";
import { describeError, hasCode } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { Client, ListOptions } from "./client.ts";

/**
 * A listing kept up to date by a watch. What it shows is a past state of the API, at most as late as the connection;
 * it never goes back to an older one. When history is gone it lists again, and finds by comparison what was deleted
 * meanwhile.
 */
export interface WatchCache<R> {
  /** Resolves with the first complete listing; rejects only when aborted before. */
  readonly synced: Promise<void>;
  get(ref: Ref): R | undefined;
  values(): IterableIterator<R>;
  readonly size: number;
  /** Called after each change; undefined stands for absence. Returns what ends it. */
  onChange(listener: (key: string, next: R | undefined, previous: R | undefined) => void): () => void;
  /**
   * The store keys of changed resources, first those of all there are; a key that changes again before it is taken
   * comes once. Usable as a source of a reconciler. Ends when the signal aborts.
   */
  keys(signal: AbortSignal): AsyncIterable<string>;
  /** Resolves when the watch has ended after the abort. */
  readonly done: Promise<void>;
}

export interface WatchCacheOptions extends ListOptions {
  clock: Clock;
  logger: Logger;
}

const firstPauseMs = 100;
const longestPauseMs = 5_000;

/** Starts at once and goes on, through any failure, until the signal aborts. */
export function createWatchCache<S, T>(
  client: Client,
  kind: Kind<S, T>,
  options: WatchCacheOptions,
  signal: AbortSignal,
): WatchCache<Resource<S, T>> {
  return new Cache(client, kind, options, signal);
}

type Listener<R> = (key: string, next: R | undefined, previous: R | undefined) => void;

class Cache<S, T> implements WatchCache<Resource<S, T>> {
  readonly synced: Promise<void>;
  readonly done: Promise<void>;
  readonly #client: Client;
  readonly #kind: Kind<S, T>;
  readonly #filter: ListOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #byKey = new Map<string, Resource<S, T>>();
  readonly #listeners = new Set<Listener<Resource<S, T>>>();
  readonly #firstListing = Promise.withResolvers<void>();

  constructor(client: Client, kind: Kind<S, T>, options: WatchCacheOptions, signal: AbortSignal) {
    const { clock, logger, ...filter } = options;
    this.#client = client;
    this.#kind = kind;
    this.#filter = filter;
    this.#clock = clock;
    this.#logger = logger;
    this.synced = this.#firstListing.promise;
    // Whoever does not wait for it must not be told of the abort as an unhandled rejection.
    this.synced.catch(() => {});
    this.done = this.#run(signal);
  }

  get size(): number {
    return this.#byKey.size;
  }

  get(ref: Ref): Resource<S, T> | undefined {
    return this.#byKey.get(resourceKey(this.#kind, ref));
  }

  values(): IterableIterator<Resource<S, T>> {
    return this.#byKey.values();
  }

  onChange(listener: Listener<Resource<S, T>>): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async *keys(signal: AbortSignal): AsyncGenerator<string> {
    // A set: its size is bounded by the number of resources, however far behind the reader is.
    const changed = new Set(this.#byKey.keys());
    let wake = () => {};
    const stop = this.onChange((key) => {
      changed.add(key);
      wake();
    });
    const onAbort = () => wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const [key] = changed;
        if (key !== undefined) {
          changed.delete(key);
          yield key;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      stop();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    let pauseMs = firstPauseMs;
    while (!signal.aborted) {
      try {
        const after = await this.#list(signal);
        for await (const event of this.#client.watch(this.#kind, { ...this.#filter, after }, signal)) {
          pauseMs = firstPauseMs;
          if (event.type === "put") this.#put(event.resource);
          else if (event.type === "delete") this.#delete(resourceKey(this.#kind, event.ref));
        }
      } catch (error) {
        if (signal.aborted) break;
        const level = hasCode(error, "Compacted") ? "info" : "warn";
        const about = { kind: this.#kind.name, error: describeError(error) };
        this.#logger[level](about, "a watch ended; listing again");
      }
      await this.#clock.sleep(pauseMs, signal).catch(() => {});
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
    this.#firstListing.reject(signal.reason);
  }

  async #list(signal: AbortSignal): Promise<number> {
    const { items, revision } = await this.#client.list(this.#kind, this.#filter, { signal });
    const present = new Set<string>();
    for (const resource of items) present.add(this.#put(resource));
    for (const key of [...this.#byKey.keys()]) if (!present.has(key)) this.#delete(key);
    this.#firstListing.resolve();
    return revision;
  }

  #put(next: Resource<S, T>): string {
    const key = resourceKey(this.#kind, next.metadata as Ref);
    const previous = this.#byKey.get(key);
    const known = previous?.metadata.uid === next.metadata.uid;
    if (previous && known && previous.metadata.revision >= next.metadata.revision) return key;
    this.#byKey.set(key, next);
    for (const listener of this.#listeners) listener(key, next, previous);
    return key;
  }

  #delete(key: string): void {
    const previous = this.#byKey.get(key);
    if (!previous) return;
    this.#byKey.delete(key);
    for (const listener of this.#listeners) listener(key, undefined, previous);
  }
}
