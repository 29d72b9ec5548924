/**
 * The one error type of Strata. Rooms throw it with a closed `code`; only the edges (API, CLI, facades)
 * translate it. `message` is for the person who caused it: which action failed, on what, with which value,
 * and what would help. `detail` and `cause` go to logs only and never leave the host.
 */
export const errorCodes = [
  "NotFound",
  "AlreadyExists",
  "Conflict",
  "Invalid",
  "Unauthenticated",
  "Forbidden",
  "QuotaExceeded",
  "CapacityExceeded",
  "Unsupported",
  "Unavailable",
  "Timeout",
  "Compacted",
  "Internal",
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** One wrong value in the input: where (a path such as `spec.memoryMib`), what, and what would be allowed. */
export interface FieldError {
  path: string;
  message: string;
  allowed?: string;
}

export interface StrataErrorOptions {
  /** For logs only; may hold paths, commands and output. Never secrets. */
  detail?: string;
  fields?: readonly FieldError[];
  cause?: unknown;
}

export class StrataError extends Error {
  readonly code: ErrorCode;
  readonly detail: string | undefined;
  readonly fields: readonly FieldError[];

  constructor(code: ErrorCode, message: string, options: StrataErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "StrataError";
    this.code = code;
    this.detail = options.detail;
    this.fields = options.fields ?? [];
  }
}

/** May the same request succeed later without anyone changing it? */
export function isRetryable(code: ErrorCode): boolean {
  switch (code) {
    case "Conflict":
    case "CapacityExceeded":
    case "Unavailable":
    case "Timeout":
    case "Compacted":
    case "Internal":
      return true;
    case "NotFound":
    case "AlreadyExists":
    case "Invalid":
    case "Unauthenticated":
    case "Forbidden":
    case "QuotaExceeded":
    case "Unsupported":
      return false;
  }
}

/** True when `error` is a StrataError of one of these codes. */
export function hasCode(error: unknown, ...codes: ErrorCode[]): error is StrataError {
  return error instanceof StrataError && codes.includes(error.code);
}

/** Anything thrown, as a StrataError; what is not one already becomes Internal with the original as cause. */
export function toStrataError(error: unknown, action: string): StrataError {
  if (error instanceof StrataError) return error;
  return new StrataError("Internal", `${action} failed unexpectedly; the daemon's log has the cause`, {
    cause: error,
  });
}

/** The whole cause chain, details included, on one line. For logs. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let current: unknown = error, depth = 0; current !== undefined && depth < 8; depth++) {
    if (current instanceof StrataError) {
      parts.push(`${current.code}: ${current.message}${current.detail ? ` (${current.detail})` : ""}`);
    } else if (current instanceof Error) parts.push(`${current.name}: ${current.message}`);
    else parts.push(String(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(" <- ");
}

/** Broken invariants: a bug of ours, never the user's doing. */
export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new StrataError("Internal", `an internal invariant does not hold: ${invariant}`);
}
