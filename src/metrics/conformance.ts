import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { assert, hasCode } from "../core/errors.ts";
import type { VirtualClock } from "../core/virtual-clock.ts";
import { type MetricStore, metricLimits, type Point, type Sample, type SeriesName } from "./metric-store.ts";

interface Bench {
  clock: VirtualClock;
  store: MetricStore;
  /** Stores that survive their process: closes and opens again. */
  reopen?(): MetricStore;
  dispose(): void;
}

const cpu: SeriesName = { subject: "/instances/default/web", uid: "0000000000000001", metric: "cpu" };
const minute = 60_000;
const hour = 3_600_000;
const day = 86_400_000;

/** What every metric store must do. `survives`: benches can reopen theirs. */
export function metricStoreConformance(name: string, make: () => Bench, { survives = false } = {}): void {
  let bench: Bench;
  beforeEach(() => {
    bench = make();
  });
  afterEach(() => {
    bench.store.close();
    bench.dispose();
  });
  describe(`${name} keeps series`, () => {
    describe("newest samples", () => newestCases(() => bench));
    describe("ranges", () => rangeCases(() => bench));
    describe("retention", () => retentionCases(() => bench));
    describe("a clock that is set back", () => setBackCases(() => bench));
    if (survives) describe("over a reopening", () => reopenCases(() => bench));
  });
}

function sample(at: number, value: number, name: Partial<SeriesName> = {}): Sample {
  return { ...cpu, ...name, at, value };
}

/** One sample at the clock's time, then onwards. */
async function recordEvery(bench: Bench, stepMs: number, values: readonly number[]): Promise<void> {
  for (const value of values) {
    bench.store.record([sample(bench.clock.now(), value)]);
    await bench.clock.advance(stepMs);
  }
}

function codeOf(action: () => unknown): string {
  try {
    action();
    return "none";
  } catch (error) {
    return hasCode(error, "Invalid") ? "Invalid" : String(error);
  }
}

function newestCases(current: () => Bench): void {
  test("the newest sample is there at once, unless it is too old", () => {
    const { store, clock } = current();
    const now = clock.now();
    expect(store.latest(cpu, 0)).toBeUndefined();
    store.record([sample(now, 1), sample(now, 2, { metric: "memory" })]);
    store.record([sample(now + 500, 3)]);
    expect(store.latest(cpu, now)).toEqual(sample(now + 500, 3));
    expect(store.latest(cpu, now + 501)).toBeUndefined();
    expect([...store.current(now)]).toEqual(
      expect.arrayContaining([sample(now + 500, 3), sample(now, 2, { metric: "memory" })]),
    );
    expect([...store.current(now + 1)]).toHaveLength(1);
  });

  test("another uid of the same name is another series", () => {
    const { store, clock } = current();
    const now = clock.now();
    const other = { uid: "0000000000000002" };
    store.record([sample(now, 1), sample(now, 2, other)]);
    expect(store.latest(cpu, now)?.value).toBe(1);
    expect(store.latest({ ...cpu, ...other }, now)?.value).toBe(2);
    expect(store.range({ ...cpu, ...other, from: now, until: now + 1, stepMs: 1_000 })).toHaveLength(1);
  });

  test("what is older than the newest is dropped, alone", () => {
    const { store, clock } = current();
    const now = clock.now();
    store.record([sample(now, 1)]);
    store.record([sample(now - 1, 9), sample(now - 1, 5, { metric: "memory" })]);
    expect(store.latest(cpu, 0)?.value).toBe(1);
    expect(store.latest({ ...cpu, metric: "memory" }, 0)?.value).toBe(5);
    expect(store.range({ ...cpu, from: now - 10, until: now + 10, stepMs: 1_000 })).toHaveLength(1);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, -1e39])("%d is Invalid, and nothing is taken", (value) => {
    const { store, clock } = current();
    const now = clock.now();
    expect(codeOf(() => store.record([sample(now, 1), sample(now, value, { metric: "memory" })]))).toBe(
      "Invalid",
    );
    expect(store.latest(cpu, 0)).toBeUndefined();
  });

  test("listeners are told the subjects after they were recorded, until they leave", () => {
    const { store, clock } = current();
    const told: [string[], number | undefined][] = [];
    const leave = store.onRecord((subjects) => told.push([[...subjects], store.latest(cpu, 0)?.value]));
    store.record([sample(clock.now(), 1), sample(clock.now(), 1, { subject: "/hosts/a" })]);
    leave();
    store.record([sample(clock.now(), 2)]);
    expect(told).toEqual([[[cpu.subject, "/hosts/a"], 1]]);
  });
}

function rangeCases(current: () => Bench): void {
  test("a step tells mean, smallest and largest; empty steps are left out; the end is exclusive", async () => {
    const bench = current();
    const from = bench.clock.now();
    await recordEvery(bench, 2_500, [1, 2, 6, 4]);
    await bench.clock.advance(60_000);
    await recordEvery(bench, 1_000, [8, 16]);
    const query = { ...cpu, from, until: from + 71_000, stepMs: 10_000 };
    expect(bench.store.range(query)).toEqual([
      { at: from, mean: 3.25, min: 1, max: 6 },
      { at: from + 70_000, mean: 8, min: 8, max: 8 },
    ]);
  });

  test("several samples of one second count alike", () => {
    const { store, clock } = current();
    const now = Math.ceil(clock.now() / minute) * minute;
    store.record([sample(now, 1), sample(now + 100, 2), sample(now + 999, 6)]);
    store.record([sample(now + 1_000, 3)]);
    const query = { ...cpu, from: now, until: now + minute, stepMs: minute };
    expect(store.range(query)).toEqual([{ at: now, mean: 3, min: 1, max: 6 }]);
  });

  test("seven digits survive", async () => {
    const bench = current();
    const from = Math.ceil(bench.clock.now() / 1_000) * 1_000;
    await bench.clock.advanceTo(from);
    await recordEvery(bench, 1_000, [0.1, 123_456.7, 1e-9, -4e9]);
    const means = bench.store.range({ ...cpu, from, until: from + 4_000, stepMs: 1_000 }).map((p) => p.mean);
    expect(means).toEqual([0.1, 123_456.7, 1e-9, -4e9]);
  });

  test.each<[string, (from: number) => { from: number; until: number; stepMs: number }]>([
    ["a step below a second", (from) => ({ from, until: from + 10, stepMs: 999 })],
    ["an end before the beginning", (from) => ({ from, until: from - 1, stepMs: 1_000 })],
    [
      "too many steps",
      (from) => ({ from, until: from + (metricLimits.pointsPerQuery + 1) * 1_000, stepMs: 1_000 }),
    ],
  ])("%s is Invalid", (_name, range) => {
    const { store, clock } = current();
    expect(codeOf(() => store.range({ ...cpu, ...range(clock.now()) }))).toBe("Invalid");
  });

  test("an unknown series is empty", () => {
    const { store, clock } = current();
    expect(store.range({ ...cpu, from: 0, until: clock.now(), stepMs: day })).toEqual([]);
  });
}

function retentionCases(current: () => Bench): void {
  /** Samples every 30 s for three hours: 0, 1, 2, … */
  async function threeHours(bench: Bench): Promise<number> {
    const from = Math.ceil(bench.clock.now() / hour) * hour;
    await bench.clock.advanceTo(from);
    await recordEvery(
      bench,
      30_000,
      Array.from({ length: 360 }, (_, i) => i),
    );
    return from;
  }

  test("seconds for two hours, then minutes, then hours: nothing of the mean, the least and the most is lost", async () => {
    const bench = current();
    const { store, clock } = bench;
    const from = await threeHours(bench);
    const fine = store.range({ ...cpu, from: clock.now() - hour, until: clock.now(), stepMs: 1_000 });
    expect(fine).toHaveLength(120);
    const minutes = store.range({ ...cpu, from, until: clock.now(), stepMs: 1_000 });
    expect(minutes).toHaveLength(180);
    expect(minutes[1]).toEqual({ at: from + minute, mean: 2.5, min: 2, max: 3 });
    await clock.advance(15 * day);
    store.prune(clock.now());
    const hours = store.range({ ...cpu, from, until: from + 3 * hour, stepMs: hour });
    const expected: Point[] = [0, 1, 2].map((i) => ({
      at: from + i * hour,
      mean: i * 120 + 59.5,
      min: i * 120,
      max: i * 120 + 119,
    }));
    expect(hours).toEqual(expected);
    expect(store.range({ ...cpu, from: clock.now() - hour, until: clock.now(), stepMs: 1_000 })).toEqual([]);
  });

  test("a series that nobody writes is forgotten in the end; the others are not", async () => {
    const bench = current();
    const { store, clock } = bench;
    const from = await threeHours(bench);
    await clock.advance(metricLimits.idleSeriesMs + hour);
    const other = { metric: "memory" };
    store.record([sample(clock.now(), 1, other)]);
    store.prune(clock.now());
    expect(store.range({ ...cpu, from, until: clock.now(), stepMs: day })).toEqual([]);
    const range = { from: clock.now(), until: clock.now() + 1, stepMs: 1_000 };
    expect(store.range({ ...cpu, ...other, ...range })).toHaveLength(1);
  });
}

function setBackCases(current: () => Bench): void {
  const all = (from: number) => ({ ...cpu, from, until: from + 2 * hour, stepMs: minute });

  /** One sample a minute for an hour, from a full hour on: 0, 1, 2, … */
  async function anHour(bench: Bench): Promise<number> {
    const from = Math.ceil(bench.clock.now() / hour) * hour;
    await bench.clock.advanceTo(from);
    await recordEvery(
      bench,
      minute,
      Array.from({ length: 60 }, (_, i) => i),
    );
    return from;
  }

  test("what lies ahead is not current, and what comes now replaces it", async () => {
    const bench = current();
    const { store, clock } = bench;
    const from = await anHour(bench);
    clock.setBack(30 * minute);
    expect(store.latest(cpu, 0)).toBeUndefined();
    expect([...store.current(0)]).toEqual([]);
    store.record([sample(clock.now(), 1_000)]);
    expect(store.latest(cpu, clock.now())).toEqual(sample(clock.now(), 1_000));
    expect(store.range(all(from)).map(({ max }) => max)).toEqual([
      ...Array.from({ length: 30 }, (_, i) => i),
      1_000,
    ]);
    await clock.advance(minute);
    await recordEvery(bench, minute, [1_001, 1_002]);
    expect(store.range(all(from)).map(({ max }) => max)).toEqual([
      ...Array.from({ length: 30 }, (_, i) => i),
      1_000,
      1_001,
      1_002,
    ]);
  });

  test("other series keep what they have until they are recorded again", async () => {
    const bench = current();
    const { store, clock } = bench;
    const from = await anHour(bench);
    clock.setBack(30 * minute);
    store.record([sample(clock.now(), 1, { metric: "memory" })]);
    expect(store.range(all(from))).toHaveLength(60);
  });

  test("by less than hosts' clocks may differ, it only waits", async () => {
    const bench = current();
    const { store, clock } = bench;
    const now = clock.now();
    store.record([sample(now, 1)]);
    clock.setBack(metricLimits.aheadMs);
    store.record([sample(clock.now(), 2)]);
    expect(store.latest(cpu, 0)).toEqual(sample(now, 1));
  });
}

function reopenCases(current: () => Bench): void {
  test("closing loses nothing, and what is older than before is still dropped", async () => {
    const bench = current();
    const from = Math.ceil(bench.clock.now() / minute) * minute;
    await bench.clock.advanceTo(from);
    await recordEvery(
      bench,
      10_000,
      Array.from({ length: 180 }, (_, i) => i),
    );
    const query = { ...cpu, from, until: bench.clock.now(), stepMs: minute };
    const before = bench.store.range(query);
    expect(before).toHaveLength(30);
    assert(bench.reopen, "this bench can reopen its store");
    const store = bench.reopen();
    expect(store.range(query)).toEqual(before);
    expect(store.latest(cpu, from)?.value).toBe(179);
    store.record([sample(bench.clock.now() - minute, 1_000), sample(bench.clock.now(), 180)]);
    expect(store.range({ ...query, until: query.until + minute })).toEqual([
      ...before,
      { at: bench.clock.now(), mean: 180, min: 180, max: 180 },
    ]);
  });

  test.each([1, 30, 200])(
    "set back, then reopened after %d samples: what came since is there, alone",
    async (count) => {
      const bench = current();
      const from = Math.ceil(bench.clock.now() / hour) * hour;
      await bench.clock.advanceTo(from);
      const firsts = Array.from({ length: 360 }, (_, i) => i);
      await recordEvery(bench, 10_000, firsts);
      bench.clock.setBack(30 * minute);
      const since = Array.from({ length: count }, (_, i) => 1_000 + i);
      await recordEvery(bench, 10_000, since);
      assert(bench.reopen, "this bench can reopen its store");
      const store = bench.reopen();
      const points = store.range({ ...cpu, from, until: from + 2 * hour, stepMs: 10_000 });
      expect(points.map(({ max }) => max)).toEqual([...firsts.slice(0, 180), ...since]);
      expect(store.latest(cpu, 0)?.value).toBe(since.at(-1));
    },
  );
}
