import { type Random, randomFraction } from "../core/random.ts";

export interface Backoff {
  /** The delay after the first failure. */
  minMs: number;
  maxMs: number;
}

/**
 * The delay before the next try after `attempt` failures in a row (1 or more): doubles up to `maxMs`, of which up to a
 * half is taken off at random, so that what failed together is not tried again together.
 */
export function backoffMs(backoff: Backoff, attempt: number, random: Random): number {
  const doublings = Math.min(Math.max(attempt - 1, 0), 40);
  const full = Math.min(backoff.maxMs, backoff.minMs * 2 ** doublings);
  return Math.round(full * (1 - randomFraction(random) / 2));
}
