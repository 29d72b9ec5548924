/** From outcomes to health, pure. */
import type { Instant } from "../../core/clock.ts";
import type { HealthCheck } from "../../kinds/instance.ts";
import { startPaceMs } from "../start-pace.ts";
import type { Outcome } from "./network-checks.ts";

export interface Tally {
  /** `unknown`: not enough has been seen of this run. */
  result: "unknown" | "healthy" | "unhealthy";
  successes: number;
  failures: number;
  /** Of the failures in a row: when they began, and what was seen last. */
  failingSince?: Instant;
  saw?: string;
  unsupported?: boolean;
}

export const emptyTally: Tally = { result: "unknown", successes: 0, failures: 0 };

/** Failures within this time of a run's first check are not told: it may just be starting. */
export const patienceMs = 2_000;

type Rules = Pick<HealthCheck, "rise" | "fall">;

/** `ageMs`: since the first check of the run. */
export function addOutcome(tally: Tally, outcome: Outcome, rules: Rules, now: Instant, ageMs: number): Tally {
  if (outcome.healthy) {
    const successes = tally.successes + 1;
    const result = successes >= rules.rise ? "healthy" : tally.result;
    return { result, successes, failures: 0, ...(result === "unhealthy" ? lastSeen(tally) : {}) };
  }
  const failures = tally.failures + 1;
  const patient = tally.result === "unknown" && ageMs < patienceMs && !outcome.unsupported;
  return {
    result: failures >= rules.fall && !patient ? "unhealthy" : tally.result,
    successes: 0,
    failures,
    failingSince: tally.failures === 0 ? now : (tally.failingSince ?? now),
    saw: outcome.saw,
    ...(outcome.unsupported ? { unsupported: true } : {}),
  };
}

/** What is told stays until it is healthy again. */
function lastSeen({ failingSince, saw }: Tally): Pick<Tally, "failingSince" | "saw"> {
  return { ...(failingSince === undefined ? {} : { failingSince }), ...(saw === undefined ? {} : { saw }) };
}

/** Does it change what a person is told? */
export function isNews(before: Tally, after: Tally): boolean {
  return before.result !== after.result || (after.result !== "healthy" && before.saw !== after.saw);
}

const firstCommandDelayMs = 250;

/**
 * Until the next check. Until a run is healthy for the first time, it is asked more often: somebody waits for it. `ageMs`: since
 * the first check of the run.
 */
export function nextDelayMs(
  tally: Tally,
  check: Pick<HealthCheck, "type" | "intervalMs">,
  ageMs: number,
): number {
  if (tally.result !== "unknown") return check.intervalMs;
  const paceMs = startPaceMs(ageMs, check.type === "command" ? firstCommandDelayMs : undefined);
  return Math.min(check.intervalMs, paceMs);
}
