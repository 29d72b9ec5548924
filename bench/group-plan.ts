/**
 * How long `strata group plan` computes the year of 100 groups, each with terms, weekends and office hours of its own:
 * `node bench/group-plan.ts`.
 */
import { systemClock } from "../src/core/clock.ts";
import { planCapacity } from "../src/kinds/scaling/plan-year.ts";
import { manyGroups } from "../src/kinds/scaling/testing-groups.ts";
import { median } from "./statistics.ts";

const from = Temporal.Instant.from("2026-11-28T00:00:00Z").epochMilliseconds;
const until = Temporal.Instant.from("2027-11-28T00:00:00Z").epochMilliseconds;

for (const [what, cpus] of [
  ["capacity for all", 100_000],
  ["capacity for half", 450],
] as const) {
  const times: number[] = [];
  let changes = 0;
  for (let run = 0; run < 5; run++) {
    const groups = manyGroups(100);
    const began = systemClock.monotonicMs();
    const plan = planCapacity({ groups, capacity: { cpus, memoryMib: 10_000_000 }, from, until });
    times.push(systemClock.monotonicMs() - began);
    changes = plan.changes.length;
  }
  const [first = 0] = times;
  console.log(
    `${what}: ${changes} changes; first run ${first.toFixed(0)} ms, median of ${times.length} ${median(times).toFixed(0)} ms`,
  );
}
