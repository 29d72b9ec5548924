import type { Clock } from "../core/clock.ts";
import type { Random } from "../core/random.ts";
import { resourceKey, resourcePrefix } from "../kinds/keys.ts";
import type { Resource } from "../kinds/kind.ts";
import { fromStored } from "../kinds/stored.ts";
import { type Revision, type Store, storeLimits } from "../store/store.ts";
import type { World } from "./hooks.ts";

/** The view of the store that verbs and hooks share. */
export function createWorld(store: Store, clock: Clock, random: Random): World {
  return {
    store,
    clock,
    random,
    async find(kind, ref) {
      const entry = await store.get(resourceKey(kind, ref));
      return entry && fromStored(entry);
    },
    async *scan<S, T>(
      kind: Parameters<World["scan"]>[0],
      project: string | undefined,
      at?: Revision,
    ): AsyncGenerator<Resource<S, T>> {
      const prefix = resourcePrefix(kind, project);
      let revision = at;
      let after: string | undefined;
      do {
        const page = await store.list(prefix, {
          limit: storeLimits.pageEntries,
          ...(after === undefined ? {} : { after }),
          ...(revision === undefined ? {} : { at: revision }),
        });
        for (const entry of page.entries) yield fromStored<Resource<S, T>>(entry);
        revision = page.revision;
        after = page.next;
      } while (after !== undefined);
    },
  };
}

/** Names of at most `limit` resources of a kind, for messages. */
export async function someNames(
  world: World,
  kind: Parameters<World["scan"]>[0],
  project: string | undefined,
  limit: number,
): Promise<string[]> {
  const page = await world.store.list(resourcePrefix(kind, project), { limit });
  return page.entries.map((entry) => fromStored(entry).metadata.name);
}
