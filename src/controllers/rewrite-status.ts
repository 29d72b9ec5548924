import { hasCode } from "../core/errors.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { fromStored, toStored } from "../kinds/stored.ts";
import type { Store } from "../store/store.ts";
import type { StoreCache } from "./store-cache.ts";

const maxAttempts = 10;

/**
 * Writes what `change` makes of the status, for statuses that others write as well, other parts of them: a write that was
 * overtaken is made anew on what is there. False: the resource is gone.
 * @throws Conflict when that does not end.
 */
export async function rewriteStatus<S, T>(
  store: Store,
  kind: Kind<S, T>,
  cache: StoreCache<S, T>,
  resource: Resource<S, T>,
  change: (status: T) => T,
): Promise<boolean> {
  const key = resourceKey(kind, resource.metadata as Ref);
  let current = cache.get(key) ?? resource;
  for (let attempt = 1; ; attempt++) {
    if (current.metadata.uid !== resource.metadata.uid) return false;
    const next = { ...current, status: change(current.status) };
    try {
      const { revision } = current.metadata;
      const written = await store.commit([{ put: key, value: toStored(next), ifRevision: revision }]);
      cache.learn(key, { ...next, metadata: { ...next.metadata, revision: written } });
      return true;
    } catch (error) {
      if (!hasCode(error, "Conflict") || attempt >= maxAttempts) throw error;
    }
    const entry = await store.get(key);
    if (!entry) return false;
    current = fromStored<Resource<S, T>>(entry);
  }
}
