/**
 * `node sim/run.ts --seeds N [--from S] [--minutes M]`: many histories, and the seed of each that goes wrong.
 * `node sim/run.ts --groups --seeds N [--days D] [--small]`: of fifty groups on twenty hosts; `--small`: of twenty on two, whose
 * controllers are killed ten times as often, so that many seeds cost little.
 */
import { parseArgs } from "node:util";
import { systemClock } from "../src/core/clock.ts";
import { simulateGroups } from "./groups/group-simulation.ts";
import { simulate } from "./simulation.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    minutes: { type: "string", default: "4" },
    groups: { type: "boolean", default: false },
    days: { type: "string", default: "365" },
    small: { type: "boolean", default: false },
  },
});
/** A long history tells how far it is. */
const daysBetweenLines = 30;
const onDay = (day: number, counts: Record<string, number>) => {
  if (day % daysBetweenLines === 0) console.log(`day ${day}: ${JSON.stringify(counts)}`);
};
const small = { hosts: 2, groups: 20, instances: 100, killRate: 0.05 };
const from = Number(values.from);
const begun = systemClock.monotonicMs();
let failures = 0;
const totals: Record<string, number> = {};
for (let seed = from; seed < from + Number(values.seeds); seed++) {
  try {
    const { counts } = values.groups
      ? await simulateGroups({ seed, days: Number(values.days), onDay, ...(values.small ? small : {}) })
      : await simulate({ seed, turmoilMs: Number(values.minutes) * 60_000 });
    if (values.groups) console.log(`seed ${seed}: ${JSON.stringify(counts)}`);
    for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count;
  } catch (error) {
    failures++;
    console.error(error instanceof Error ? error.message : error);
  }
}
const seconds = Math.round((systemClock.monotonicMs() - begun) / 1000);
const { user, system } = process.cpuUsage();
const processor = Math.round((user + system) / 1_000_000);
console.log(
  `${values.seeds} histories in ${seconds} s (${processor} s of processor time), ${failures} failed`,
);
console.log(totals);
process.exit(failures > 0 ? 1 : 0);
