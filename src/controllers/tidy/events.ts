import { type Event, eventRetention } from "../../kinds/event.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import { storeLimits } from "../../store/store.ts";
import type { ControllerContext } from "../context.ts";

interface EventsWorld {
  /** Keys of those beyond the retention, oldest first. */
  surplus: readonly string[];
}

/** Beyond the retention before the oldest are taken out: the look at all of them is worth it then. */
const slack = 200;

/** Keeps the newest events. */
export function createEventRetention({
  caches,
  store,
}: ControllerContext): Reconciler<EventsWorld, string[], never> {
  const { events } = caches;
  return {
    name: "event-retention",
    watches: [
      {
        name: "events",
        async *keys(signal) {
          for await (const _key of events.watchKeys(signal))
            if (events.size > eventRetention + slack) yield "events";
        },
      },
    ],
    async observe() {
      if (events.size <= eventRetention) return { surplus: [] };
      const byAge = [...events.values()].sort(olderFirst);
      return { surplus: byAge.slice(0, events.size - eventRetention).map((event) => events.keyOf(event)) };
    },
    plan({ surplus }) {
      const batches: string[][] = [];
      for (let at = 0; at < surplus.length; at += storeLimits.writesPerCommit) {
        batches.push(surplus.slice(at, at + storeLimits.writesPerCommit));
      }
      return { status: undefined, actions: batches };
    },
    async execute(keys) {
      await store.commit(keys.map((key) => ({ delete: key })));
      for (const key of keys) events.delete(key);
    },
  };
}

function olderFirst(a: Event, b: Event): number {
  const [one, other] = [a.metadata, b.metadata];
  if (one.createdAt !== other.createdAt) return one.createdAt < other.createdAt ? -1 : 1;
  return one.revision - other.revision;
}
