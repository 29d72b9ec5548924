import { StrataError } from "../core/errors.ts";
import type { Json } from "../core/json.ts";
import { checkKnown, checkPrefix, checkRevision, closedError } from "./requests.ts";
import { type Revision, type StoreEvent, storeLimits } from "./store.ts";

/**
 * The watches of one store. A watcher holds a position in the history, not a queue: commits only mark it, and it
 * reads the history itself, in small batches, when its reader asks. So memory does not grow with slow readers, a
 * writer never waits, and live events and old ones take one path, with no seam to lose or repeat an event at.
 *
 * Invariant: every event under the watcher's prefix at or before `position` is delivered or in `batch`; while
 * `upToDate`, that holds for the whole store.
 */

/** Place of an event in the history of everything: by revision, then by place within the commit. */
export type Position = number;

export function positionOf(revision: Revision, index: number): Position {
  return revision * storeLimits.writesPerCommit + index;
}

/** The last position that a commit of this revision can use. */
export function endOf(revision: Revision): Position {
  return positionOf(revision, storeLimits.writesPerCommit - 1);
}

function revisionOf(position: Position): Revision {
  return Math.floor(position / storeLimits.writesPerCommit);
}

export interface HistoryEvent {
  position: Position;
  key: string;
  /** JSON; undefined: the key was deleted. */
  text: string | undefined;
}

export interface History {
  latest(): Revision;
  /** The oldest revision with its events and its state intact. */
  oldest(): Revision;
  /**
   * The next events after a position under a prefix, in order; `through` is how far was looked, so a batch may be
   * empty before the end. Bounded in events, bytes and time.
   */
  readAfter(position: Position, prefix: string): { events: HistoryEvent[]; through: Position };
  /** Awaited between batches, so that a long catch-up leaves room for others. */
  pause?(): Promise<void>;
}

interface Watcher {
  readonly prefix: string;
  /** Events later than this count as lag; older ones the reader asked for. */
  readonly liveFrom: Position;
  position: Position;
  upToDate: boolean;
  batch: HistoryEvent[];
  /** Live events under the prefix that the reader has not taken. */
  lag: number;
  wake: () => void;
}

export class Watchers {
  readonly #history: History;
  readonly #open = new Set<Watcher>();
  #closed = false;

  constructor(history: History) {
    this.#history = history;
  }

  /** To be called after each commit, in order, when the history shows it. Never throws, never waits. */
  publish(revision: Revision, keys: readonly string[]): void {
    for (const watcher of this.#open) {
      let matches = 0;
      for (const key of keys) if (key.startsWith(watcher.prefix)) matches++;
      if (matches === 0) {
        if (watcher.upToDate) watcher.position = endOf(revision);
        continue;
      }
      watcher.upToDate = false;
      watcher.lag += matches;
      if (watcher.lag > storeLimits.watchBacklogEvents) this.#drop(watcher);
      watcher.wake();
    }
  }

  /** Open watches end; later ones throw Unavailable. */
  close(): void {
    this.#closed = true;
    for (const watcher of this.#open) watcher.wake();
  }

  async *watch(prefix: string, after: Revision, signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    checkPrefix(prefix);
    checkRevision("after", after);
    if (this.#closed) throw closedError();
    if (signal.aborted) return;
    checkKnown("watch after", after, this.#oldestResume(), this.#history.latest());
    const watcher: Watcher = {
      prefix,
      liveFrom: endOf(this.#history.latest()),
      position: endOf(after),
      upToDate: after === this.#history.latest(),
      batch: [],
      lag: 0,
      wake: () => {},
    };
    const onAbort = () => {
      this.#drop(watcher);
      watcher.wake();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#open.add(watcher);
    try {
      while (!this.#closed && !signal.aborted) {
        if (watcher.lag > storeLimits.watchBacklogEvents) {
          throw droppedError(prefix, `fell more than ${storeLimits.watchBacklogEvents} events behind`);
        }
        const event = watcher.batch.shift();
        if (event) {
          if (event.position > watcher.liveFrom) watcher.lag--;
          yield toStoreEvent(event);
        } else if (watcher.upToDate) {
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
        } else await this.#fill(watcher);
      }
    } finally {
      this.#drop(watcher);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** At once, for a reader that ended its watch or fell behind may never come back to be told. */
  #drop(watcher: Watcher): void {
    this.#open.delete(watcher);
    watcher.batch = [];
  }

  async #fill(watcher: Watcher): Promise<void> {
    if (watcher.position < endOf(this.#oldestResume())) {
      throw droppedError(watcher.prefix, "was overtaken by compaction");
    }
    const { events, through } = this.#history.readAfter(watcher.position, watcher.prefix);
    watcher.batch = events;
    watcher.position = through;
    watcher.upToDate = through === endOf(this.#history.latest());
    if (!watcher.upToDate) await this.#history.pause?.();
  }

  /** The oldest `after` that misses nothing: compaction keeps the events of `oldest` itself. */
  #oldestResume(): Revision {
    return Math.max(0, this.#history.oldest() - 1);
  }
}

function toStoreEvent(event: HistoryEvent): StoreEvent {
  const { key, text } = event;
  const revision = revisionOf(event.position);
  if (text === undefined) return { type: "delete", key, revision };
  return { type: "put", key, value: JSON.parse(text) as Json, revision };
}

function droppedError(prefix: string, reason: string): StrataError {
  return new StrataError("Compacted", `the watch of ${JSON.stringify(prefix)} ${reason}; list again`);
}
