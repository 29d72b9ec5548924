import type { Json } from "../core/json.ts";

/**
 * The store: keys to JSON values, one store-wide revision, compare-and-commit, resumable watches. It knows nothing
 * of kinds. Implementations (memory, SQLite, later etcd) pass the same `storeConformance`.
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
  /** Key to pass as `after` for the next page; absent on the last. */
  next?: string;
}

/** Limits of every implementation. */
export const storeLimits = {
  writesPerCommit: 64,
  keyBytes: 512,
  valueBytes: 1024 * 1024,
  pageEntries: 1000,
  /** Events a watcher may lag behind before it is dropped with Compacted. */
  watchBacklogEvents: 10_000,
} as const;

export interface Store {
  /** The latest value, or undefined. */
  get(key: string): Promise<Entry | undefined>;
  /**
   * Keys with this prefix in byte order, at most `limit` (1 to storeLimits.pageEntries). With `at`, the state as of
   * that revision, so that all pages of one listing agree. @throws Compacted when `at` is too old.
   */
  list(prefix: string, page: { limit: number; after?: string; at?: Revision }): Promise<Page>;
  /**
   * All writes or none, as one revision, durable when it resolves. A key is named at most once. A write with
   * `ifRevision` needs the key at exactly that revision (0: absent); without it, it is unconditional; deleting what
   * is absent is then no error. @throws Conflict naming the key; Invalid when a limit is exceeded.
   */
  commit(writes: readonly Write[]): Promise<Revision>;
  /**
   * Every event under the prefix after that revision, in commit order, none missed, none twice. Ends when the signal
   * aborts (no throw). A slow reader never blocks a writer. @throws Compacted when history before `after` is gone
   * or the reader fell too far behind: list again and resume from that page's revision.
   */
  watch(prefix: string, after: Revision, signal: AbortSignal): AsyncIterable<StoreEvent>;
  /** The latest committed revision; 0 when nothing was ever committed. */
  revision(): Promise<Revision>;
  /** Forgets history before this revision; current values stay. Idempotent. */
  compact(before: Revision): Promise<void>;
  /** Waits for commits under way; open watches end. Idempotent. */
  close(): Promise<void>;
}
