import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { silentLogger } from "../../core/logger.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { createMemoryMetricStore } from "../memory/memory-metric-store.ts";
import { openSqliteMetricStore } from "./sqlite-metric-store.ts";

const start = 1_700_000_000_000;
const metrics = ["cpu", "memory", "sent"];

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant("record" as const),
      metric: fc.constantFrom(...metrics),
      value: fc.integer({ min: -1000, max: 1000 }),
      behindMs: fc.constantFrom(0, 0, 0, 1, 5_000),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 700, 1_000, 10_000, 61_000, 700_000, 4_000_000),
    }),
  },
  { weight: 1, arbitrary: fc.constantFrom({ type: "reopen" as const }, { type: "prune" as const }) },
);

const record = (metric: string, value: number) => ({
  type: "record" as const,
  metric,
  value,
  behindMs: 0 as const,
});
const reopen = { type: "reopen" as const };
const wait = { type: "wait", ms: 1 } as const;
/** Two in one millisecond, the first of them in the chunks when the second comes. */
const sameMoment = [wait, record("sent", 0), reopen, record("sent", 0), reopen, wait, record("sent", -1)];

test("whatever is recorded, waited for, pruned and reopened, both stores tell the same", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const directory = mkdtempSync(join(tmpdir(), "strata-metrics-"));
      const clock = new VirtualClock(start);
      const memory = createMemoryMetricStore({ clock });
      const open = () =>
        openSqliteMetricStore({ path: join(directory, "m.db"), clock, logger: silentLogger });
      let sqlite = open();
      const series = (metric: string) => ({ subject: "/instances/p/a", uid: "0000000000000001", metric });
      try {
        for (const one of steps) {
          if (one.type === "wait") await clock.advance(one.ms);
          else if (one.type === "prune") for (const store of [memory, sqlite]) store.prune(clock.now());
          else if (one.type === "reopen") {
            sqlite.close();
            sqlite = open();
          } else {
            const sample = { ...series(one.metric), at: clock.now() - one.behindMs, value: one.value };
            for (const store of [memory, sqlite]) store.record([sample]);
          }
        }
        const until = clock.now() + 1;
        for (const metric of metrics) {
          for (const [backMs, stepMs] of [
            [7_000_000, 1_000],
            [86_400_000, 60_000],
            [20 * 86_400_000, 3_600_000],
          ] as const) {
            const query = { ...series(metric), from: until - backMs, until, stepMs };
            const [a, b] = [memory.range(query), sqlite.range(query)];
            expect(b.map(({ at, min, max }) => [at, min, max])).toEqual(
              a.map(({ at, min, max }) => [at, min, max]),
            );
            for (const [index, point] of b.entries())
              expect(point.mean).toBeCloseTo(a[index]?.mean ?? Number.NaN, 2);
          }
        }
      } finally {
        sqlite.close();
        rmSync(directory, { recursive: true });
      }
    }),
    { numRuns: 60, examples: [[sameMoment]] },
  );
});
