import { StrataError } from "../../core/errors.ts";
import type { PreparedWrite } from "../requests.ts";
import type { Revision } from "../store.ts";

/**
 * Group commit: what arrives in one turn of the event loop is applied together, so that many commits share one
 * transaction and one fsync, and a lone one waits for nobody. Order of arrival is order of application.
 *
 * A group that fails as a whole is applied again one by one, so that a commit too large for the space left fails
 * alone.
 */

/** A commit's own answer; a StrataError refuses this commit only. */
export type Outcome = Revision | StrataError;

/** Applies a group durably, or throws having changed nothing. */
export type Apply = (group: readonly (readonly PreparedWrite[])[]) => Outcome[];

/** The event loop waits for a group, hence its size; the queue only fills while the disk is slower than its users. */
export const queueLimits = {
  groupWrites: 1024,
  groupBytes: 4 * 1024 * 1024,
  waitingCommits: 10_000,
  waitingBytes: 64 * 1024 * 1024,
} as const;

interface Waiting {
  writes: readonly PreparedWrite[];
  bytes: number;
  resolve: (revision: Revision) => void;
  reject: (error: unknown) => void;
}

export class CommitQueue {
  readonly #apply: Apply;
  #waiting: Waiting[] = [];
  #bytes = 0;
  #scheduled = false;

  constructor(apply: Apply) {
    this.#apply = apply;
  }

  /** @throws Unavailable when too much is waiting already. */
  add(writes: readonly PreparedWrite[]): Promise<Revision> {
    const bytes = writes.reduce((sum, { key, text }) => sum + key.length + (text?.length ?? 0), 0);
    if (
      this.#waiting.length >= queueLimits.waitingCommits ||
      this.#bytes + bytes > queueLimits.waitingBytes
    ) {
      return Promise.reject(
        new StrataError(
          "Unavailable",
          `cannot commit: ${this.#waiting.length} commits are waiting for the disk already; try again shortly`,
        ),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ writes, bytes, resolve, reject });
      this.#bytes += bytes;
      this.#schedule();
    });
  }

  /** Applies everything that waits, now. */
  flush(): void {
    while (this.#waiting.length > 0) this.#applyGroup();
  }

  #schedule(): void {
    if (this.#scheduled || this.#waiting.length === 0) return;
    this.#scheduled = true;
    // After the I/O callbacks of this turn, all of which may add their commits first.
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#waiting.length > 0) this.#applyGroup();
      this.#schedule();
    });
  }

  #applyGroup(): void {
    let writes = 0;
    let bytes = 0;
    let size = 0;
    for (const commit of this.#waiting) {
      writes += commit.writes.length;
      bytes += commit.bytes;
      if (size > 0 && (writes > queueLimits.groupWrites || bytes > queueLimits.groupBytes)) break;
      size++;
    }
    const group = this.#waiting.splice(0, size);
    for (const commit of group) this.#bytes -= commit.bytes;
    this.#settle(group);
  }

  #settle(group: Waiting[]): void {
    let outcomes: Outcome[];
    try {
      outcomes = this.#apply(group.map((commit) => commit.writes));
    } catch (error) {
      if (group.length === 1) group[0]?.reject(error);
      else for (const commit of group) this.#settle([commit]);
      return;
    }
    for (const [index, commit] of group.entries()) {
      const outcome = outcomes[index];
      if (typeof outcome === "number") commit.resolve(outcome);
      else commit.reject(outcome);
    }
  }
}
