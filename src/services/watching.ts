import { type Ref, refOfKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { fromStored } from "../kinds/stored.ts";
import type { Revision, StoreEvent } from "../store/store.ts";

export type ResourceEvent =
  | { type: "put"; revision: Revision; resource: Resource }
  | { type: "delete"; revision: Revision; ref: Ref };

/** What of the store's events a watcher gets to know. */
export interface WatchFilter {
  kind: Kind;
  /** Does the watcher want (and may it see) this resource? */
  wanted(resource: Resource): boolean;
  present(resource: Resource): Resource;
  /**
   * Keys that the watcher may have on its list. Deletes of other keys are kept from it. Undefined: any key, so the
   * first sight of something unwanted is told as a delete: whether it was on the list, only the watcher knows.
   */
  known?: Set<string>;
}

/**
 * Resources that match as puts, and as deletes those that are gone or match no more. Deletes may name what the
 * watcher never had.
 */
export async function* resourceEvents(
  events: AsyncIterable<StoreEvent>,
  filter: WatchFilter,
): AsyncGenerator<ResourceEvent> {
  const { kind, known } = filter;
  /** Without `known`: unwanted keys already told as deletes. */
  const told = new Set<string>();
  for await (const event of events) {
    const { key, revision } = event;
    const resource = event.type === "put" ? fromStored(event) : undefined;
    if (resource && filter.wanted(resource)) {
      told.delete(key);
      known?.add(key);
      yield { type: "put", revision, resource: filter.present(resource) };
      continue;
    }
    if (known ? !known.delete(key) : told.has(key)) {
      if (!resource) told.delete(key);
      continue;
    }
    if (resource && !known) told.add(key);
    yield { type: "delete", revision, ref: refOfKey(kind, key) };
  }
}
