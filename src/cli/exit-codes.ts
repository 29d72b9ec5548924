import type { ErrorCode } from "../core/errors.ts";

/**
 * The exit status of a command that failed, by the error's code. Stable: scripts depend on it. 0 is success, 1 any other
 * failure, 130 an interruption by Ctrl-C; `exec`, `shell` and `ssh` pass on the status of what they ran.
 */
export const exitCodes = {
  Internal: 1,
  Compacted: 1,
  Invalid: 2,
  NotFound: 3,
  AlreadyExists: 4,
  Conflict: 4,
  Unavailable: 5,
  Timeout: 5,
  Unauthenticated: 6,
  Forbidden: 6,
  QuotaExceeded: 7,
  CapacityExceeded: 7,
  Unsupported: 8,
} satisfies Record<ErrorCode, number>;

export const exitUsage = exitCodes.Invalid;
export const exitInterrupted = 130;
