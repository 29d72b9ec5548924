import type { Instant } from "../../core/clock.ts";
import { Hints } from "../../core/hints.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { Revision } from "../../store/store.ts";
import type { ControllerContext } from "../context.ts";

export interface Sample {
  at: Instant;
  revision: Revision;
}

interface HistoryWorld {
  /** Revisions at past times, oldest first; the last is now's. */
  samples: readonly Sample[];
  compactedBefore: Revision;
}

/** Watchers that were away for this long go on where they were. */
export const keptHistoryMs = 10 * 60_000;
/** And this many revisions are the most that is kept for them. */
export const keptRevisions = 100_000;
const sampleMs = 60_000;

/** Has the store forget old history, so that it does not grow without bound. */
export function createHistoryTidying({
  store,
  clock,
}: ControllerContext): Reconciler<HistoryWorld, Revision, never> {
  const start = new Hints();
  let samples: Sample[] = [];
  let compactedBefore: Revision = 0;
  return {
    name: "history",
    watches: [{ name: "start", keys: (signal) => start.keys(signal, ["history"]) }],
    async observe() {
      const at = clock.now();
      const last = samples.at(-1);
      if (!last || at - last.at >= sampleMs) samples.push({ at, revision: await store.revision() });
      // The newest that is old enough stands for all before it.
      const old = samples.findLastIndex((sample) => at - sample.at >= keptHistoryMs);
      if (old > 0) samples = samples.slice(old);
      return { samples, compactedBefore };
    },
    plan: planHistory,
    async execute(before) {
      await store.compact(before);
      compactedBefore = before;
    },
  };
}

export function planHistory({ samples, compactedBefore }: HistoryWorld, now: Instant) {
  const old = samples.findLast((sample) => now - sample.at >= keptHistoryMs)?.revision ?? 0;
  const latest = samples.at(-1)?.revision ?? 0;
  const before = Math.max(old, latest - keptRevisions);
  return {
    status: undefined,
    actions: before > compactedBefore ? [before] : [],
    recheckAfterMs: sampleMs,
  };
}
