import type { Resource } from "../../kinds/kind.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import { storeLimits } from "../../store/store.ts";
import type { ControllerContext } from "../context.ts";

interface RetentionWorld {
  /** Keys of those beyond the retention, oldest first. */
  surplus: readonly string[];
}

/** Beyond the retention before the oldest are taken out: the look at all of them is worth it then. */
const slack = 200;

/** Keeps the newest records of a kind: nothing depends on them. */
export function createRetention(
  { caches, store }: ControllerContext,
  records: "events" | "scalingDecisions",
  kept: number,
): Reconciler<RetentionWorld, string[], never> {
  const cache = caches[records];
  return {
    name: `${records}-retention`,
    watches: [
      {
        name: records,
        async *keys(signal) {
          for await (const _key of cache.watchKeys(signal)) if (cache.size > kept + slack) yield records;
        },
      },
    ],
    async observe() {
      if (cache.size <= kept) return { surplus: [] };
      const byAge = [...cache.keys()]
        .flatMap((key) => {
          const resource = cache.get(key);
          return resource ? [{ key, resource: resource as Resource }] : [];
        })
        .sort((a, b) => olderFirst(a.resource, b.resource));
      return { surplus: byAge.slice(0, cache.size - kept).map(({ key }) => key) };
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
      for (const key of keys) cache.delete(key);
    },
  };
}

function olderFirst(a: Resource, b: Resource): number {
  const [one, other] = [a.metadata, b.metadata];
  if (one.createdAt !== other.createdAt) return one.createdAt < other.createdAt ? -1 : 1;
  return one.revision - other.revision;
}
