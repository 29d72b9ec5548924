import type { Json } from "../../core/json.ts";
import { compareKeys, keySuccessor } from "../keys.ts";
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
import { SortedKeys, search } from "./sorted-keys.ts";

/**
 * The store in memory: the reference for the others, and the store of simulations and tests. Every operation takes
 * effect when it is called and settles in the same turn, without timers, so that a run repeats exactly. Values are
 * held as JSON text, so no caller can reach into the store through an object it passed or was given.
 *
 * A key has all its versions since the last compaction, oldest first; `#log` has every event since then. Both are
 * as simple as the contract allows: what this store answers is right by definition, so it must be plain to see.
 */
export function createMemoryStore(): Store {
  return new MemoryStore();
}

interface Version {
  revision: Revision;
  /** JSON; undefined: deleted by this revision. */
  text: string | undefined;
}

const batchEvents = 64;

class MemoryStore implements Store {
  /** Never an empty list. */
  readonly #versions = new Map<string, Version[]>();
  /** Of #versions, in byte order. */
  readonly #keys = new SortedKeys();
  #log: HistoryEvent[] = [];
  #revision: Revision = 0;
  #oldest: Revision = 0;
  #closed = false;
  readonly #watchers = new Watchers({
    latest: () => this.#revision,
    oldest: () => this.#oldest,
    readAfter: (position, prefix) => this.#readAfter(position, prefix),
  });

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    this.#checkOpen();
    return toEntry(key, this.#at(key, this.#revision));
  }

  async list(prefix: string, page: { limit: number; after?: string; at?: Revision }): Promise<Page> {
    checkPrefix(prefix);
    checkPage(page);
    this.#checkOpen();
    const revision = page.at ?? this.#revision;
    checkKnown("list as of", revision, this.#oldest, this.#revision);
    const { after } = page;
    const begin = after === undefined || compareKeys(after, prefix) < 0 ? prefix : keySuccessor(after);
    const entries: Entry[] = [];
    let size = 0;
    for (const key of this.#keys.from(begin)) {
      if (!key.startsWith(prefix)) break;
      const version = this.#at(key, revision);
      const entry = toEntry(key, version);
      if (!entry) continue;
      const last = entries.at(-1);
      if (last && (entries.length === page.limit || size >= storeLimits.pageBytes)) {
        return { entries, revision, next: last.key };
      }
      entries.push(entry);
      size += version?.text?.length ?? 0;
    }
    return { entries, revision };
  }

  async commit(writes: readonly Write[]): Promise<Revision> {
    const prepared = prepareWrites(writes);
    this.#checkOpen();
    for (const write of prepared) {
      const version = this.#at(write.key, this.#revision);
      const actual = version?.text === undefined ? 0 : version.revision;
      if (write.ifRevision !== undefined && write.ifRevision !== actual) throw conflict(write, actual);
    }
    this.#revision++;
    const changed: string[] = [];
    for (const [index, write] of prepared.entries()) if (this.#apply(write, index)) changed.push(write.key);
    this.#watchers.publish(this.#revision, changed);
    return this.#revision;
  }

  watch(prefix: string, after: Revision, signal: AbortSignal) {
    return this.#watchers.watch(prefix, after, signal);
  }

  async revision(): Promise<Revision> {
    this.#checkOpen();
    return this.#revision;
  }

  async compact(before: Revision): Promise<void> {
    checkCompaction(before, this.#revision);
    this.#checkOpen();
    if (before <= this.#oldest) return;
    this.#oldest = before;
    const kept = this.#log.findIndex((event) => event.position > endOf(before - 1));
    this.#log = kept < 0 ? [] : this.#log.slice(kept);
    let forgot = false;
    for (const [key, versions] of this.#versions) {
      const current = versions.findLastIndex((version) => version.revision <= before);
      if (current > 0) versions.splice(0, current);
      const [first] = versions;
      if (first && first.revision <= before && first.text === undefined) versions.shift();
      if (versions.length > 0) continue;
      this.#versions.delete(key);
      forgot = true;
    }
    if (forgot) this.#keys.keep((key) => this.#versions.has(key));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watchers.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError();
  }

  #at(key: string, revision: Revision): Version | undefined {
    return this.#versions.get(key)?.findLast((version) => version.revision <= revision);
  }

  /** False when nothing changed: a delete of what is absent. */
  #apply(write: PreparedWrite, index: number): boolean {
    const { key, text } = write;
    if (text === undefined && this.#at(key, this.#revision)?.text === undefined) return false;
    const versions = this.#versions.get(key);
    if (versions) versions.push({ revision: this.#revision, text });
    else {
      this.#versions.set(key, [{ revision: this.#revision, text }]);
      this.#keys.add(key);
    }
    this.#log.push({ position: positionOf(this.#revision, index), key, text });
    return true;
  }

  #readAfter(position: Position, prefix: string): { events: HistoryEvent[]; through: Position } {
    const events: HistoryEvent[] = [];
    for (let i = search(this.#log, (event) => event.position > position); i < this.#log.length; i++) {
      const event = this.#log[i];
      if (!event?.key.startsWith(prefix)) continue;
      events.push(event);
      if (events.length === batchEvents) return { events, through: event.position };
    }
    return { events, through: endOf(this.#revision) };
  }
}

function toEntry(key: string, version: Version | undefined): Entry | undefined {
  if (version?.text === undefined) return undefined;
  return { key, value: JSON.parse(version.text) as Json, revision: version.revision };
}
