import { isJsonObject, type Json, type JsonObject, jsonEquals } from "../core/json.ts";

/**
 * The merge patch (RFC 7396) that turns `before` into `after`; undefined when they are equal. Members that are
 * undefined count as absent; a null inside `after` cannot be expressed and counts as absent too.
 */
export function statusPatch(before: object, after: object): JsonObject | undefined {
  const patch = difference(toJson(before), toJson(after));
  return Object.keys(patch).length === 0 ? undefined : patch;
}

function difference(before: JsonObject, after: JsonObject): JsonObject {
  const patch: JsonObject = {};
  for (const key of Object.keys(before)) if (!Object.hasOwn(after, key)) patch[key] = null;
  for (const [key, value] of Object.entries(after)) {
    const previous = Object.hasOwn(before, key) ? before[key] : undefined;
    if (jsonEquals(previous, value)) continue;
    patch[key] = isJsonObject(previous) && isJsonObject(value) ? difference(previous, value) : value;
  }
  return patch;
}

/** As it goes over the wire, without nulls inside objects. */
function toJson(value: object): JsonObject {
  return withoutNulls(JSON.parse(JSON.stringify(value)) as Json) as JsonObject;
}

function withoutNulls(value: Json): Json {
  if (!isJsonObject(value)) return value;
  const entries = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(entries.map(([key, member]) => [key, withoutNulls(member)]));
}
