import { StrataError } from "../core/errors.ts";
import type { Json } from "../core/json.ts";
import { type Revision, storeLimits, type Write } from "./store.ts";

/**
 * What every implementation checks before it acts, so that all refuse the same requests in the same words.
 */

/** A write that passed the checks: its value is text, a copy that the caller can no longer change. */
export interface PreparedWrite {
  key: string;
  /** JSON; undefined deletes. */
  text: string | undefined;
  ifRevision: Revision | undefined;
}

/** @throws Invalid when a limit is exceeded, a key is malformed or named twice, or a value is no JSON. */
export function prepareWrites(writes: readonly Write[]): PreparedWrite[] {
  if (writes.length < 1 || writes.length > storeLimits.writesPerCommit) {
    throw invalid(
      `cannot commit ${writes.length} writes at once`,
      `1 to ${storeLimits.writesPerCommit} writes`,
    );
  }
  const seen = new Set<string>();
  return writes.map((write) => {
    const key = "put" in write ? write.put : write.delete;
    checkKey(key);
    if (seen.has(key)) throw invalid(`cannot commit: ${quote(key)} is named twice`, "each key once");
    seen.add(key);
    if (write.ifRevision !== undefined) checkRevision("ifRevision", write.ifRevision);
    const text = "put" in write ? toText(key, write.value) : undefined;
    return { key, text, ifRevision: write.ifRevision };
  });
}

/** The Conflict that both implementations report, naming the key. */
export function conflict(write: PreparedWrite, actual: Revision): StrataError {
  const expected = write.ifRevision === 0 ? "to be absent" : `at revision ${write.ifRevision}`;
  const found = actual === 0 ? "it is absent" : `it is at revision ${actual}`;
  return new StrataError(
    "Conflict",
    `cannot commit: ${quote(write.key)} was expected ${expected}, but ${found}; read it again and retry`,
  );
}

export function checkKey(key: string): void {
  checkText("key", key);
  const bytes = Buffer.byteLength(key);
  if (bytes < 1 || bytes > storeLimits.keyBytes) {
    throw invalid(`the key ${quote(key)} has ${bytes} bytes`, `1 to ${storeLimits.keyBytes} bytes`);
  }
}

/** A prefix may be empty. */
export function checkPrefix(prefix: string): void {
  checkText("prefix", prefix);
}

export function checkPage(page: { limit: number; after?: string; at?: Revision }): void {
  if (!Number.isInteger(page.limit) || page.limit < 1 || page.limit > storeLimits.pageEntries) {
    throw invalid(`cannot list ${page.limit} entries a page`, `1 to ${storeLimits.pageEntries}`);
  }
  if (page.after !== undefined) checkText("after", page.after);
  if (page.at !== undefined) checkRevision("at", page.at);
}

export function checkRevision(name: string, revision: Revision): void {
  if (!Number.isSafeInteger(revision) || revision < 0) {
    throw invalid(`${name} ${revision} is not a revision`, "a whole number, 0 or more");
  }
}

/** `before` of compact, against the latest revision. */
export function checkCompaction(before: Revision, latest: Revision): void {
  checkRevision("before", before);
  if (before > latest) {
    throw invalid(`cannot compact before revision ${before}: the latest is ${latest}`, `at most ${latest}`);
  }
}

/** @throws Compacted unless `revision` is in [oldest, latest]. */
export function checkKnown(action: string, revision: Revision, oldest: Revision, latest: Revision): void {
  if (revision >= oldest && revision <= latest) return;
  const reason = revision < oldest ? `the oldest known is ${oldest}` : `the latest is ${latest}`;
  throw new StrataError("Compacted", `cannot ${action} revision ${revision}: ${reason}; list again`);
}

export function closedError(): StrataError {
  return new StrataError(
    "Unavailable",
    "the store is closed: the daemon is shutting down; try again shortly",
  );
}

/** As JSON text, within bounds for messages. */
function quote(key: string): string {
  return JSON.stringify(key.length > 120 ? `${key.slice(0, 120)}…` : key);
}

function checkText(name: string, text: string): void {
  if (typeof text !== "string" || !text.isWellFormed() || text.includes("\0")) {
    throw invalid(`the ${name} ${quote(String(text))} is malformed`, "well-formed Unicode text without NUL");
  }
}

function toText(key: string, value: Json): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new StrataError("Invalid", `the value of ${quote(key)} cannot be written as JSON`, { cause });
  }
  if (text === undefined) throw invalid(`the value of ${quote(key)} is undefined`, "a JSON value");
  const bytes = Buffer.byteLength(text);
  if (bytes > storeLimits.valueBytes) {
    throw invalid(`the value of ${quote(key)} has ${bytes} bytes`, `at most ${storeLimits.valueBytes} bytes`);
  }
  return text;
}

function invalid(what: string, allowed: string): StrataError {
  return new StrataError("Invalid", `${what}; allowed: ${allowed}`);
}
