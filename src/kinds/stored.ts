import type { Json } from "../core/json.ts";
import type { Resource } from "./kind.ts";

/**
 * How a resource lies in the store: as it is shown, except that `metadata.revision` is 0 there, because only the
 * commit knows it. Readers of the store take it from the entry.
 */
export function toStored(resource: Resource): Json {
  return { ...resource, metadata: { ...resource.metadata, revision: 0 } } as unknown as Json;
}

/** The resource of a store entry or put event. The value must be one that toStored made. */
export function fromStored<R extends Resource = Resource>(entry: { value: Json; revision: number }): R {
  const resource = entry.value as unknown as R;
  return { ...resource, metadata: { ...resource.metadata, revision: entry.revision } };
}
