import type { IncomingHttpHeaders } from "node:http";
import { hasCode, StrataError } from "../core/errors.ts";
import { HttpError } from "./problems.ts";

/** Conditional requests (RFC 9110): a resource's ETag is its revision in quotes. */

export function etagOf(resource: { metadata: { revision: number } }): string {
  return `"${resource.metadata.revision}"`;
}

/**
 * The revision that a write depends on: `If-Match: "N"`, or 0 for `If-None-Match: *`.
 * @throws Invalid for anything else but `If-Match: *`, which any revision fulfils.
 */
export function revisionOf(headers: IncomingHttpHeaders): number | undefined {
  const match = headers["if-match"];
  const noneMatch = headers["if-none-match"];
  if (noneMatch !== undefined) {
    if (noneMatch === "*" && match === undefined) return 0;
    throw malformed("If-None-Match", "`*` alone, for: only if it does not exist");
  }
  if (match === undefined || match === "*") return undefined;
  const revision = /^"(\d{1,15})"$/.exec(match)?.[1];
  if (revision === undefined) throw malformed("If-Match", 'one ETag as it was given, such as "42"');
  return Number(revision);
}

/** Does the client have this version already? */
export function isKnown(headers: IncomingHttpHeaders, etag: string): boolean {
  return headers["if-none-match"]?.split(",").some((known) => known.trim() === etag) ?? false;
}

/** A Conflict over a revision that the client asked for is a failed precondition. */
export async function withPrecondition<T>(revision: number | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (revision === undefined || !hasCode(error, "Conflict")) throw error;
    throw new HttpError(412, "Conflict", error.message, { cause: error });
  }
}

function malformed(header: string, allowed: string): StrataError {
  return new StrataError("Invalid", `the header ${header} is malformed; allowed: ${allowed}`);
}
