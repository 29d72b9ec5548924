import type { Json } from "../core/json.ts";

/**
 * The store: keys to JSON values, one store-wide revision, compare-and-commit, resumable watches. It knows nothing
 * of kinds. Implementations (memory, SQLite, later etcd) pass the same `storeConformance`.
 *
 * Every operation is linearizable: it takes effect at one instant between its call and its answer. Values go in and
 * come out as copies. Besides the errors named below, every method throws Unavailable once the store is closed or
 * when the medium under it fails; nothing of a commit that throws is ever visible.
 */

/** Store-wide and strictly increasing, one a commit; 0 means "must not exist yet". */
export type Revision = number;

export interface Entry {
  key: string;
  value: Json;
  /** The commit that wrote this value. */
  revision: Revision;
}

export type Write =
  | { put: string; value: Json; ifRevision?: Revision }
  | { delete: string; ifRevision?: Revision };

export type StoreEvent =
  | { type: "put"; key: string; value: Json; revision: Revision }
  | { type: "delete"; key: string; revision: Revision };

export interface Page {
  entries: Entry[];
  /** The state of the store that this page shows; pass it as `at` for the next page, and to `watch` as `after`. */
  revision: Revision;
  /** Key to pass as `after` for the next page; absent on the last. A page with `next` may be short of `limit`. */
  next?: string;
}

/** Limits of every implementation. */
export const storeLimits = {
  writesPerCommit: 64,
  /** Of the key in UTF-8. */
  keyBytes: 512,
  /** Of the value as JSON text in UTF-8. */
  valueBytes: 1024 * 1024,
  pageEntries: 1000,
  /** A page ends early once its values are this large, so that no listing stalls the process. */
  pageBytes: 4 * 1024 * 1024,
  /** Events a watcher may lag behind before it is dropped with Compacted. */
  watchBacklogEvents: 10_000,
} as const;

export interface Store {
  /** The latest value, or undefined. */
  get(key: string): Promise<Entry | undefined>;
  /**
   * Keys with this prefix in the order of their UTF-8 bytes, at most `limit` (1 to storeLimits.pageEntries). `after`
   * need not exist. With `at`, the state as of that revision, so that all pages of one listing agree.
   * @throws Compacted when the store does not know the state at `at`: compacted, or (after a restored backup) not
   * reached yet.
   */
  list(prefix: string, page: { limit: number; after?: string; at?: Revision }): Promise<Page>;
  /**
   * All writes or none, as one revision, durable when it resolves; `writes` is copied before the call returns. A key
   * is 1 to storeLimits.keyBytes of well-formed text without NUL, named at most once; 1 to
   * storeLimits.writesPerCommit writes. A write with `ifRevision` needs the key at exactly that revision (0: absent);
   * without it, it is unconditional; deleting what is absent is then no error and no event, but still a revision.
   * @throws Conflict naming the first key that is not as expected; Invalid when a limit is exceeded; Unavailable when
   * there is no space left.
   */
  commit(writes: readonly Write[]): Promise<Revision>;
  /**
   * Every event under the prefix after that revision, in commit order and within a commit in the order of its
   * writes, none missed, none twice. Ends when the signal aborts or the store closes (no throw), without waiting for
   * events not yet read. A slow reader never blocks a writer. Starts with the first `next()`.
   *
   * To resume, pass the revision of the last commit seen *whole*: a commit is known to be whole once an event of a
   * later one arrives; the last event's revision - 1 is always safe and may repeat events.
   * @throws Compacted when history after `after` is gone or was never there, or the reader fell more than
   * storeLimits.watchBacklogEvents behind: list again and resume from that page's revision. A reader that has read
   * everything is never dropped, however quiet its prefix.
   */
  watch(prefix: string, after: Revision, signal: AbortSignal): AsyncIterable<StoreEvent>;
  /** The latest committed revision; 0 when nothing was ever committed. */
  revision(): Promise<Revision>;
  /**
   * Forgets history before this revision: listing at `before` and watching after `before - 1` still work, anything
   * older throws Compacted; current values stay. Idempotent. History grows without bound until its owner calls this.
   * @throws Invalid when `before` is later than the latest revision.
   */
  compact(before: Revision): Promise<void>;
  /** Waits for commits under way; open watches end. Idempotent. */
  close(): Promise<void>;
}
