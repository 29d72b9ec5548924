import { type Ref, refOfKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { fromStored } from "../kinds/stored.ts";
import type { Revision, StoreEvent } from "../store/store.ts";

/**
 * How much of a listing's events has been told: all commits before `revision`, and of that commit the first `count`
 * events under the listing's prefix. A commit may write several resources, so its revision alone is not exact enough
 * to resume without repeating or missing one.
 */
export interface WatchPosition {
  revision: Revision;
  count: number;
}

/** A position between commits. */
export function afterRevision(revision: Revision): WatchPosition {
  return { revision: revision + 1, count: 0 };
}

export type ResourceEvent = { position: WatchPosition } & (
  | { type: "put"; resource: Resource }
  | { type: "delete"; ref: Ref }
);

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
 * watcher never had. `events` must begin after the commit before `from`.
 */
export async function* resourceEvents(
  events: AsyncIterable<StoreEvent>,
  from: WatchPosition,
  filter: WatchFilter,
): AsyncGenerator<ResourceEvent> {
  const { kind } = filter;
  const view = new View(filter);
  let position = from;
  let seen = 0;
  for await (const event of events) {
    if (event.revision !== position.revision) {
      position = { revision: event.revision, count: 0 };
      seen = 0;
    }
    const resource = event.type === "put" ? fromStored(event) : undefined;
    const news = view.take(event.key, resource);
    seen++;
    if (seen <= position.count) continue;
    position = { revision: position.revision, count: seen };
    if (news === "put" && resource) yield { type: "put", position, resource: filter.present(resource) };
    else if (news === "delete") yield { type: "delete", position, ref: refOfKey(kind, event.key) };
  }
}

/** What the watcher may believe to be on its list. */
class View {
  readonly #filter: WatchFilter;
  /** Without `known`: unwanted keys already told as deletes. */
  readonly #told = new Set<string>();

  constructor(filter: WatchFilter) {
    this.#filter = filter;
  }

  take(key: string, resource: Resource | undefined): "put" | "delete" | undefined {
    const { known } = this.#filter;
    if (resource && this.#filter.wanted(resource)) {
      this.#told.delete(key);
      known?.add(key);
      return "put";
    }
    if (known) return known.delete(key) ? "delete" : undefined;
    if (!resource) return this.#told.delete(key) ? undefined : "delete";
    if (this.#told.has(key)) return undefined;
    this.#told.add(key);
    return "delete";
  }
}
