import { StrataError } from "../core/errors.ts";
import { isJsonObject } from "../core/json.ts";
import type { Resource } from "../kinds/kind.ts";
import type { Revision } from "../store/store.ts";

/** Which resources of a kind are wanted. */
export interface Filter {
  /** Each label must have this value. */
  labels?: Readonly<Record<string, string>>;
  /** `status.host` must be this. */
  host?: string;
  /** `status.state` must be this. */
  state?: string;
}

export interface ListQuery extends Filter {
  /** Left out: all that the caller may see. */
  project?: string;
  /** 1 to listLimits.maxItems. */
  limit?: number;
  /** The `next` of the page before. */
  after?: string;
}

export interface ResourcePage {
  items: Resource[];
  /** The state that all pages of this listing show; to watch after it misses nothing. */
  revision: Revision;
  /** Absent on the last page. A page may be short of `limit` and still have it. */
  next?: string;
}

export const listLimits = {
  defaultItems: 100,
  maxItems: 1000,
  /** Resources looked at for one page, however few match. */
  maxScanned: 5000,
} as const;

export function hasFilter(filter: Filter): boolean {
  return filter.host !== undefined || filter.state !== undefined || filter.labels !== undefined;
}

export function matches(resource: Resource, filter: Filter): boolean {
  const status = resource.status as { host?: string; state?: string };
  if (filter.host !== undefined && status.host !== filter.host) return false;
  if (filter.state !== undefined && status.state !== filter.state) return false;
  const { labels } = resource.metadata;
  return Object.entries(filter.labels ?? {}).every(([key, value]) => labels[key] === value);
}

/** Where a listing goes on: after this key, as of this revision. */
interface Position {
  after: string;
  at: Revision;
}

/** Opaque to clients. */
export function encodePosition(position: Position): string {
  return Buffer.from(JSON.stringify([position.at, position.after])).toString("base64url");
}

/** @throws Invalid for what encodePosition did not make under this prefix. */
export function decodePosition(token: string, prefix: string): Position {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, "base64url").toString());
    if (Array.isArray(value) && !isJsonObject(value)) {
      const [at, after] = value as unknown[];
      const isRevision = typeof at === "number" && Number.isSafeInteger(at) && at >= 0;
      if (isRevision && typeof after === "string" && after.startsWith(prefix)) return { at, after };
    }
  } catch {
    // Not even JSON: the same answer.
  }
  throw new StrataError("Invalid", "cannot list: `after` is not the `next` of a page of this list", {
    fields: [{ path: "after", message: "must be the `next` of the page before, as it was given" }],
  });
}
