import type { DatabaseSync } from "node:sqlite";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { StrataError } from "../../core/errors.ts";
import type { Json } from "../../core/json.ts";
import { compareKeys, keySuccessor, prefixEnd } from "../keys.ts";
import {
  checkCompaction,
  checkKey,
  checkKnown,
  checkPage,
  checkPrefix,
  closedError,
  conflict,
  type PreparedWrite,
  prepareWrites,
} from "../requests.ts";
import { type Entry, type Page, type Revision, type Store, storeLimits, type Write } from "../store.ts";
import { endOf, type HistoryEvent, type Position, positionOf, Watchers } from "../watchers.ts";
import { CommitQueue, type Outcome } from "./commit-queue.ts";
import { openDatabase } from "./database.ts";
import { toStoreError } from "./sqlite-errors.ts";
import { prepareStatements, type Statements } from "./statements.ts";

/**
 * The store of one machine: SQLite inside the process. An acknowledged commit is on the disk (WAL, fsync) before its
 * promise resolves; a commit cut short by a crash leaves nothing. database.ts has the schema and what it means.
 *
 * SQLite runs on the main thread: a read takes microseconds, a group of commits one fsync, and a worker thread would
 * cost more memory and latency than it frees. What could take long (compaction, catching up a watch, a page of large
 * values) is therefore cut into pieces that leave room for others.
 *
 * Memory: SQLite's page cache (4 MiB) and the batches of watchers being read; values and history stay on disk.
 * History grows until compact(): the daemon calls it on a schedule of its own.
 */
export interface SqliteStoreOptions {
  /** The database file; its directory must exist. `-wal` is put beside it. */
  path: string;
  /** Commits that would make the file larger fail with Unavailable; unlimited when absent. */
  maxSizeBytes?: number;
}

/**
 * Takes the file for this process alone, creating it when missing.
 * @throws Unavailable when another daemon has it; Unsupported when a newer Strata wrote it or it is no store.
 */
export function openSqliteStore(options: SqliteStoreOptions): Store {
  return new SqliteStore(options.path, openDatabase(options.path, options.maxSizeBytes));
}

/** How much is read or removed before others get their turn. */
const turnLimits = {
  batchEvents: 64,
  batchBytes: 1024 * 1024,
  scannedEvents: 1024,
  compactedEvents: 256,
} as const;

/** SQLite sorts every blob after every text. */
const afterAllKeys = new Uint8Array(1);

class SqliteStore implements Store {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #sql: Statements;
  readonly #queue = new CommitQueue((group) => this.#apply(group));
  readonly #watchers: Watchers;
  /** As on disk; no one else writes. */
  #revision: Revision;
  #oldest: Revision;
  #closed = false;

  constructor(path: string, database: DatabaseSync) {
    this.#path = path;
    this.#database = database;
    this.#sql = prepareStatements(database);
    const state = this.#sql.state.get() as { revision: Revision; oldest: Revision };
    this.#revision = state.revision;
    this.#oldest = state.oldest;
    this.#watchers = new Watchers({
      latest: () => this.#revision,
      oldest: () => this.#oldest,
      readAfter: (position, prefix) => this.#run("watch", () => this.#readAfter(position, prefix)),
      pause: () => nextTurn(),
    });
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    return this.#run("read", () => {
      const row = this.#sql.get.get(key) as { revision: Revision; value: string } | undefined;
      return row && { key, value: JSON.parse(row.value) as Json, revision: row.revision };
    });
  }

  async list(prefix: string, page: { limit: number; after?: string; at?: Revision }): Promise<Page> {
    checkPrefix(prefix);
    checkPage(page);
    return this.#run("list", () => this.#list(prefix, page.limit, page.after, page.at ?? this.#revision));
  }

  async commit(writes: readonly Write[]): Promise<Revision> {
    const prepared = prepareWrites(writes);
    if (this.#closed) throw closedError();
    return this.#queue.add(prepared);
  }

  watch(prefix: string, after: Revision, signal: AbortSignal) {
    return this.#watchers.watch(prefix, after, signal);
  }

  async revision(): Promise<Revision> {
    return this.#run("read", () => this.#revision);
  }

  async compact(before: Revision): Promise<void> {
    this.#run("compact", () => {
      checkCompaction(before, this.#revision);
      if (before <= this.#oldest) return;
      // First, in one step: from here on nothing older is answered, so the rows can go in their own time.
      this.#sql.setOldest.run(before);
      this.#oldest = before;
    });
    while (!this.#closed) {
      const { changes } = this.#run("compact", () =>
        this.#sql.compact.run(positionOf(this.#oldest, 0), turnLimits.compactedEvents),
      );
      if (Number(changes) < turnLimits.compactedEvents) return;
      await nextTurn();
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#queue.flush();
    this.#closed = true;
    this.#watchers.close();
    this.#database.close();
  }

  #run<T>(action: string, work: () => T): T {
    if (this.#closed) throw closedError();
    try {
      return work();
    } catch (error) {
      throw toStoreError(action, this.#path, error);
    }
  }

  #list(prefix: string, limit: number, after: string | undefined, at: Revision): Page {
    checkKnown("list as of", at, this.#oldest, this.#revision);
    const start = after === undefined || compareKeys(after, prefix) < 0 ? prefix : keySuccessor(after);
    const end = prefixEnd(prefix) ?? afterAllKeys;
    const rows = at === this.#revision ? this.#sql.list.iterate(start, end) : this.#rowsAt(start, end, at);
    const entries: Entry[] = [];
    let size = 0;
    for (const row of rows as Iterable<Row>) {
      const last = entries.at(-1);
      if (last && (entries.length === limit || size >= storeLimits.pageBytes)) {
        return { entries, revision: at, next: last.key };
      }
      entries.push({ key: row.key, value: JSON.parse(row.value) as Json, revision: row.revision });
      size += row.value.length;
    }
    return { entries, revision: at };
  }

  /** In the order of keys: what has not changed since, and what the first change since then replaced. */
  *#rowsAt(start: string, end: string | Uint8Array, at: Revision): Generator<Row> {
    const unchanged = this.#sql.listUnchanged.iterate(start, end, at) as Iterable<Row>;
    const changed = this.#replacedRows(start, end, at);
    try {
      let next = changed.next();
      for (const row of unchanged) {
        for (; !next.done && compareKeys(next.value.key, row.key) < 0; next = changed.next())
          yield next.value;
        yield row;
      }
      for (; !next.done; next = changed.next()) yield next.value;
    } finally {
      changed.return();
    }
  }

  *#replacedRows(start: string, end: string | Uint8Array, at: Revision): Generator<Row, void> {
    for (const { id } of this.#sql.listChanged.iterate(start, end, endOf(at)) as Iterable<{ id: Position }>) {
      const row = this.#sql.replacedAt.get(id) as Row | { revision: null };
      if (row.revision !== null) yield row;
    }
  }

  #readAfter(position: Position, prefix: string): { events: HistoryEvent[]; through: Position } {
    const events: HistoryEvent[] = [];
    let bytes = 0;
    let scanned = 0;
    let through = position;
    for (const row of this.#sql.scan.iterate(position, turnLimits.scannedEvents) as Iterable<ScannedRow>) {
      if (events.length >= turnLimits.batchEvents || bytes >= turnLimits.batchBytes)
        return { events, through };
      scanned++;
      through = row.id;
      if (!row.key.startsWith(prefix)) continue;
      const text = this.#textWrittenAt(row.key, row.id);
      events.push({ position: row.id, key: row.key, text });
      bytes += text?.length ?? 0;
    }
    return { events, through: scanned < turnLimits.scannedEvents ? endOf(this.#revision) : through };
  }

  #textWrittenAt(key: string, position: Position): string | undefined {
    const replaced = this.#sql.nextReplaced.get(key, position) as { value: string | null } | undefined;
    if (replaced) return replaced.value ?? undefined;
    return (this.#sql.get.get(key) as { value: string } | undefined)?.value;
  }

  /** One transaction for the group; only what is on the disk is published and answered. */
  #apply(group: readonly (readonly PreparedWrite[])[]): Outcome[] {
    let revision = this.#revision;
    const published: { revision: Revision; keys: string[] }[] = [];
    const outcomes: Outcome[] = [];
    try {
      this.#sql.begin.run();
      for (const writes of group) {
        const outcome = this.#findConflict(writes);
        if (outcome) outcomes.push(outcome);
        else {
          revision++;
          published.push({ revision, keys: this.#write(writes, revision) });
          outcomes.push(revision);
        }
      }
      if (published.length > 0) this.#sql.setRevision.run(revision);
      this.#sql.commit.run();
    } catch (error) {
      // SQLite has rolled back already after some failures, such as a full disk.
      if (this.#database.isTransaction) this.#sql.rollback.run();
      throw toStoreError("commit", this.#path, error);
    }
    this.#revision = revision;
    for (const { revision, keys } of published) this.#watchers.publish(revision, keys);
    return outcomes;
  }

  /** Before anything of the commit is written, so that a refused one leaves nothing to undo. */
  #findConflict(writes: readonly PreparedWrite[]): StrataError | undefined {
    for (const write of writes) {
      if (write.ifRevision === undefined) continue;
      const actual = this.#revisionOf(write.key);
      if (actual !== write.ifRevision) return conflict(write, actual);
    }
    return undefined;
  }

  #write(writes: readonly PreparedWrite[], revision: Revision): string[] {
    const changed: string[] = [];
    for (const [index, { key, text }] of writes.entries()) {
      const position = positionOf(revision, index);
      const exists = this.#revisionOf(key) !== 0;
      if (!exists && text === undefined) continue;
      if (exists) this.#sql.recordChange.run(position, key);
      else this.#sql.recordCreation.run(position, key);
      if (text === undefined) this.#sql.remove.run(key);
      else if (exists) this.#sql.update.run(revision, text, key);
      else this.#sql.insert.run(key, revision, text);
      changed.push(key);
    }
    return changed;
  }

  /** 0: absent. */
  #revisionOf(key: string): Revision {
    return (this.#sql.revisionOf.get(key) as { revision: Revision } | undefined)?.revision ?? 0;
  }
}

interface Row {
  key: string;
  revision: Revision;
  value: string;
}

interface ScannedRow {
  id: Position;
  key: string;
}
