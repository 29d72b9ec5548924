/**
 * How long `strata group plan` computes the year of 100 groups, each with terms, weekends and office hours:
 * `node bench/group-plan.ts`. CPU time as well, which other work on the machine does not lengthen.
 */
import { systemClock } from "../src/core/clock.ts";
import { planCapacity } from "../src/kinds/scaling/plan-year.ts";
import { manyGroups } from "../src/kinds/scaling/testing-groups.ts";
import { median } from "./statistics.ts";

const from = Temporal.Instant.from("2026-11-28T00:00:00Z").epochMilliseconds;
const until = Temporal.Instant.from("2027-11-28T00:00:00Z").epochMilliseconds;
const runs = 5;

for (const [what, cpus] of [
  ["capacity for all", 100_000],
  ["capacity for half of the minimums", 450],
] as const) {
  const times: number[] = [];
  const cpuTimes: number[] = [];
  let changes = 0;
  for (let run = 0; run < runs; run++) {
    const groups = manyGroups(100);
    const began = systemClock.monotonicMs();
    const cpuBegan = process.cpuUsage();
    const plan = planCapacity({ groups, capacity: { cpus, memoryMib: 10_000_000 }, from, until });
    const { user, system } = process.cpuUsage(cpuBegan);
    times.push(systemClock.monotonicMs() - began);
    cpuTimes.push((user + system) / 1000);
    changes = plan.changes.length;
  }
  const figures = (values: readonly number[]) =>
    `first run ${values[0]?.toFixed(0)} ms, median of ${runs} ${median(values).toFixed(0)} ms`;
  console.log(`${what}, ${changes} changes: ${figures(times)}; CPU: ${figures(cpuTimes)}`);
}
