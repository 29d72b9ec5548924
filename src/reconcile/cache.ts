/**
 * What a reconciler knows of one sort of resource: kept up to date by whoever feeds it, with its owner's own writes
 * applied at once.
 *
 * Invariants: a resource never goes back to an older revision; what the owner wrote is visible to its next look, even
 * before the feed tells; only a change that matters (`relevant`) is a hint, so that status reports of one's own do not
 * call one again.
 */
import { Hints } from "../core/hints.ts";
import { untilAborted } from "./until-aborted.ts";

export interface Versioned {
  metadata: { uid: string; revision: number };
}

/** Called after each change that the cache takes over; undefined stands for absence. */
export type ChangeListener<R> = (key: string, next: R | undefined, previous: R | undefined) => void;

export class Cache<R extends Versioned> {
  /** Keys of relevant changes. */
  readonly hints = new Hints();
  readonly #relevant: (next: R, previous: R) => boolean;
  readonly #byKey = new Map<string, R>();
  readonly #byUid = new Map<string, R>();
  readonly #listeners: ChangeListener<R>[] = [];
  readonly #synced = Promise.withResolvers<void>();
  #isSynced = false;

  /** Is this change of a known resource worth a hint? Appearing and vanishing always are. Default: every change. */
  constructor(relevant: (next: R, previous: R) => boolean = () => true) {
    this.#relevant = relevant;
  }

  get(key: string): R | undefined {
    return this.#byKey.get(key);
  }

  byUid(uid: string): R | undefined {
    return this.#byUid.get(uid);
  }

  values(): IterableIterator<R> {
    return this.#byKey.values();
  }

  keys(): IterableIterator<string> {
    return this.#byKey.keys();
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** True once the first listing is complete. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** Resolves with the first complete listing. */
  whenSynced(): Promise<void> {
    return this.#synced.promise;
  }

  /** All keys, then those of relevant changes, until the signal aborts. For Watch.keys. */
  async *watchKeys(signal: AbortSignal): AsyncGenerator<string, void> {
    // Looking before everything is known would take what is not listed yet for absent.
    await Promise.race([this.#synced.promise, untilAborted(signal)]);
    yield* this.hints.keys(signal, this.#byKey.keys());
  }

  /** Listeners must not throw and not change the cache. */
  onChange(listener: ChangeListener<R>): void {
    this.#listeners.push(listener);
  }

  /** Takes over what a write of the owner returned. Never brings back what has vanished, never hints. */
  learn(key: string, resource: R): void {
    const current = this.#byKey.get(key);
    if (current?.metadata.uid === resource.metadata.uid) this.#put(key, resource, false);
  }

  /** From the feed. Older than what is known is ignored. */
  put(key: string, next: R): void {
    this.#put(key, next, true);
  }

  /** From the feed. With a uid, only when that is the one known. */
  delete(key: string, uid?: string): void {
    const previous = this.#byKey.get(key);
    if (!previous || (uid !== undefined && uid !== previous.metadata.uid)) return;
    this.#byKey.delete(key);
    this.#byUid.delete(previous.metadata.uid);
    for (const listener of this.#listeners) listener(key, undefined, previous);
    this.hints.hint(key);
  }

  /** From the feed: a complete listing. What it lacks is gone. */
  replaceAll(resources: Iterable<readonly [key: string, resource: R]>): void {
    const present = new Set<string>();
    for (const [key, resource] of resources) {
      present.add(key);
      this.put(key, resource);
    }
    for (const key of [...this.#byKey.keys()]) if (!present.has(key)) this.delete(key);
    this.markSynced();
  }

  /** From the feed: everything there is has been put. */
  markSynced(): void {
    this.#isSynced = true;
    this.#synced.resolve();
  }

  #put(key: string, next: R, mayHint: boolean): void {
    const known = this.#byKey.get(key);
    const previous = known?.metadata.uid === next.metadata.uid ? known : undefined;
    if (previous && previous.metadata.revision >= next.metadata.revision) return;
    if (known && !previous) this.delete(key);
    this.#byKey.set(key, next);
    this.#byUid.set(next.metadata.uid, next);
    for (const listener of this.#listeners) listener(key, next, previous);
    if (mayHint && (!previous || this.#relevant(next, previous))) this.hints.hint(key);
  }
}

/** Keys of a cache by a property of its resources, kept up to date. */
export class CacheIndex<R extends Versioned> {
  readonly #groups = new Map<string, Set<string>>();

  constructor(cache: Cache<R>, groupOf: (resource: R) => string | undefined) {
    cache.onChange((key, next, previous) => {
      const before = previous && groupOf(previous);
      const after = next && groupOf(next);
      if (before === after) return;
      if (before !== undefined) this.#remove(before, key);
      if (after !== undefined) this.#add(after, key);
    });
  }

  keysOf(group: string): ReadonlySet<string> {
    return this.#groups.get(group) ?? none;
  }

  #add(group: string, key: string): void {
    const keys = this.#groups.get(group);
    if (keys) keys.add(key);
    else this.#groups.set(group, new Set([key]));
  }

  #remove(group: string, key: string): void {
    const keys = this.#groups.get(group);
    keys?.delete(key);
    if (keys?.size === 0) this.#groups.delete(group);
  }
}

const none: ReadonlySet<string> = new Set();
