import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type GroupSpec, groupKind } from "../group.ts";
import { type DecisionInput, decide, type ScalingState } from "./decide.ts";
import { isTotal, neededSignals, noSignals, type Signals } from "./signals.ts";

const now = Temporal.Instant.from("2026-09-15T12:00:00Z").epochMilliseconds;
const second = 1000;

const specOf = (fields: object): GroupSpec =>
  groupKind.spec.parse({ template: { type: "container", image: "debian" }, max: 10, ...fields });

const target = (metric: string, value: number, fields: object = {}) => ({
  type: "target",
  name: metric.replace("/", "-"),
  metric,
  target: value,
  ...fields,
});

/** Fresh values: [value, members, ageMs]. */
function signalsOf(values: Record<string, [number, number, number?]>, more: Partial<Signals> = {}): Signals {
  const metrics = Object.fromEntries(
    Object.entries(values).map(([key, [value, members, ageMs = 0]]) => [key, { value, members, ageMs }]),
  );
  return { ...noSignals, metrics, ...more };
}

const stateOf = (desired: number, fields: Partial<ScalingState> = {}): ScalingState => ({
  desired,
  recentWanted: [],
  ...fields,
});

const decided = (
  spec: object,
  desired: number,
  values: Record<string, [number, number, number?]>,
  more: { state?: Partial<ScalingState>; signals?: Partial<Signals> } = {},
) =>
  decide({
    spec: specOf(spec),
    state: stateOf(desired, more.state),
    signals: signalsOf(values, more.signals),
    now,
  });

const calm = { inStabilizationSeconds: 0, inCooldownSeconds: 0 };

describe("target tracking", () => {
  test.each<[string, object, number, [number, number], number]>([
    ["cpu at twice the target doubles", target("cpu", 50), 2, [100, 2], 4],
    ["cpu a little above is near enough", target("cpu", 50), 4, [54, 4], 4],
    ["without tolerance it is not", target("cpu", 50, { tolerance: 0 }), 4, [54, 4], 5],
    ["members that are starting are not asked for again", target("cpu", 50), 4, [100, 2], 4],
    ["cpu at half", target("cpu", 50), 4, [25, 4], 2],
    ["a total is divided by the target", target("requests", 100), 1, [750, 1], 8],
    ["a total is the same whatever served it", target("requests", 100), 8, [750, 5], 8],
    ["a whole quotient is not rounded up", target("custom/jobs", 0.1, { tolerance: 0 }), 1, [0.3, 1], 3],
    ["a queue with no member at all", target("queue", 10), 0, [25, 0], 3],
    ["never beyond max", target("requests", 1), 1, [750, 1], 10],
    ["never below min", target("requests", 100), 5, [0, 5], 1],
  ])("%s", (_, policy, desired, [value, members], expected) => {
    const { metric } = policy as { metric: string };
    const decision = decided({ policies: [policy], behavior: calm }, desired, { [metric]: [value, members] });
    expect(decision.desired).toBe(expected);
  });

  test("the percentile of a latency is its own signal", () => {
    const policies = [target("latency", 200, { percentile: 99 })];
    expect(neededSignals(specOf({ policies })).map(({ key }) => key)).toEqual(["latency/99", "requests"]);
    expect(decided({ policies }, 2, { "latency/99": [400, 2] })).toMatchObject({
      desired: 4,
      winner: "latency",
      wants: [{}, { policy: "latency", members: 4, reason: "latency 400, target 200" }],
    });
  });
});

describe("steps", () => {
  const steps = [
    { from: 90, change: 3 },
    { from: 70, below: 90, change: 1 },
    { below: 30, change: -1 },
  ];
  const policies = [{ type: "step", name: "steps", metric: "cpu", steps }];

  test.each<[string, number, [number, number], number]>([
    ["far above", 2, [95, 2], 5],
    ["above", 2, [70, 2], 3],
    ["between", 2, [50, 2], 2],
    ["below", 5, [10, 5], 4],
    ["those that are starting count", 3, [80, 2], 3],
    ["those that are leaving are not given up twice", 3, [20, 4], 3],
  ])("%s", (_, desired, value, expected) => {
    expect(decided({ policies, behavior: calm }, desired, { cpu: value }).desired).toBe(expected);
  });
});

describe("the largest wish wins", () => {
  test("and the record says who wanted what", () => {
    const term = { name: "term", every: "year", from: "09-01", until: "10-01", min: 3 };
    const policies = [
      target("cpu", 50),
      { type: "calendar", name: "terms", calendar: { events: [term] } },
      { type: "forecast", name: "season", metric: "requests", target: 100 },
    ];
    const signals = { forecasts: { season: { value: 250, at: now, error: { mape: 0.123, mase: 0.61 } } } };
    expect(decided({ policies }, 1, { cpu: [30, 1] }, { signals })).toEqual({
      wanted: 3,
      desired: 3,
      winner: "terms",
      wants: [
        { policy: "manual", members: 1, reason: "the smallest number allowed now" },
        { policy: "cpu", members: 1, reason: "cpu 30, target 50" },
        { policy: "terms", members: 3, reason: "term" },
        {
          policy: "season",
          members: 3,
          reason: "requests 250 expected, 100 each; lately off by 12 %, 0.61 of last week's",
        },
      ],
      limits: [],
      bounds: { min: 3, max: 10, events: ["terms/term"] },
      recheckAfterMs: Temporal.Instant.from("2026-10-01T00:00:00Z").epochMilliseconds - now,
    });
  });

  test("a calendar's max holds against every wish", () => {
    const freeze = { name: "freeze", from: "2026-09-01", until: "2026-10-01", max: 2 };
    const policies = [target("cpu", 50), { type: "calendar", name: "c", calendar: { events: [freeze] } }];
    expect(decided({ policies }, 6, { cpu: [100, 6] })).toMatchObject({
      wanted: 2,
      desired: 2,
      winner: "cpu",
      limits: ["at most 2 (c/freeze)"],
    });
  });

  test("by hand", () => {
    expect(decided({ desired: 4 }, 1, {})).toMatchObject({ desired: 4, winner: "manual" });
  });
});

describe("missing and stale values never make a group smaller", () => {
  const policies = [target("cpu", 50), target("requests", 100)];
  test.each<[string, Record<string, [number, number, number?]>, number]>([
    ["none at all", {}, 4],
    ["one missing, the other wants fewer", { cpu: [10, 4] }, 4],
    ["one stale, the other wants fewer", { cpu: [10, 4], requests: [100, 4, 31_000] }, 4],
    ["one stale, the other wants more", { cpu: [100, 4], requests: [100, 4, 31_000] }, 8],
    ["all fresh", { cpu: [10, 4], requests: [100, 4, 29_000] }, 1],
  ])("%s", (_, values, expected) => {
    expect(decided({ policies, behavior: calm }, 4, values).desired).toBe(expected);
  });

  test("and say so", () => {
    const { limits } = decided({ policies, behavior: calm }, 4, { cpu: [10, 4], requests: [9, 4, 45_000] });
    expect(limits).toEqual([
      "not fewer than 4 while requests cannot see: the last value of requests is 45 s old",
    ]);
  });
});

describe("pace", () => {
  const policies = [target("requests", 100)];

  test("stabilisation: only to the most that was wanted lately", () => {
    const recentWanted = [
      { at: now - 121 * second, members: 9 },
      { at: now - 100 * second, members: 6 },
      { at: now - 20 * second, members: 4 },
    ];
    expect(decided({ policies }, 8, { requests: [100, 8] }, { state: { recentWanted } })).toMatchObject({
      wanted: 1,
      desired: 6,
      limits: ["6 were wanted within the last 120 s"],
      recheckAfterMs: 20 * second,
    });
  });

  test.each<[string, object, Partial<ScalingState>, number, number, number, number | undefined]>([
    ["cool-down in", { inCooldownSeconds: 60 }, { scaledInAt: now - 40 * second }, 8, 100, 8, 20 * second],
    [
      "cool-down in is over",
      { inCooldownSeconds: 60 },
      { scaledInAt: now - 60 * second },
      8,
      100,
      1,
      undefined,
    ],
    ["step in", { inStep: 2, inCooldownSeconds: 60 }, {}, 8, 100, 6, 60 * second],
    ["cool-down out", { outCooldownSeconds: 60 }, { scaledOutAt: now - 40 * second }, 2, 900, 2, 20 * second],
    ["step out", { outStep: 3, outCooldownSeconds: 60 }, {}, 2, 900, 5, 60 * second],
    ["step out without a cool-down", { outStep: 3 }, {}, 2, 900, 5, second],
  ])("%s", (_, behavior, state, desired, requests, expected, recheckAfterMs) => {
    const spec = { policies, behavior: { ...calm, ...behavior } };
    const decision = decided(spec, desired, { requests: [requests, desired] }, { state });
    expect(decision.desired).toBe(expected);
    expect(decision.recheckAfterMs).toBe(recheckAfterMs);
    expect(decision.limits).toHaveLength(recheckAfterMs === undefined ? 0 : 1);
  });

  test("a minimum that rises and a maximum that falls wait for nothing", () => {
    const behavior = { outStep: 1, outCooldownSeconds: 600, inStep: 1, inCooldownSeconds: 600 };
    const state = { scaledOutAt: now - second, scaledInAt: now - second };
    expect(decided({ min: 5, behavior }, 1, {}, { state }).desired).toBe(5);
    expect(decided({ max: 3, desired: 3, behavior }, 9, {}, { state }).desired).toBe(3);
  });
});

describe("scale to zero", () => {
  const policies = [target("requests", 100), target("cpu", 50)];
  const spec = { min: 0, policies, behavior: calm };

  test("when every total is zero, whatever the averages are", () => {
    expect(decided(spec, 1, { requests: [0, 1], cpu: [3, 1] }).desired).toBe(0);
    expect(decided(spec, 1, { requests: [0.1, 1], cpu: [0, 1] }).desired).toBe(1);
    expect(decided({ ...spec, min: 1 }, 1, { requests: [0, 1], cpu: [3, 1] }).desired).toBe(1);
  });

  test("never for an average alone", () => {
    expect(decided({ ...spec, policies: [target("cpu", 50)] }, 1, { cpu: [0, 1] }).desired).toBe(1);
  });

  test("without requests a latency that is not there does not hold it", () => {
    const latency = { ...spec, policies: [target("latency", 200), target("requests", 100)] };
    expect(decided(latency, 1, { requests: [0, 1] }).desired).toBe(0);
    expect(decided(latency, 1, { requests: [5, 1] }).desired).toBe(1);
  });

  test("held requests wake it at once, cool-down or not", () => {
    const behavior = { outCooldownSeconds: 600, outStep: 1 };
    const state = { scaledOutAt: now - second };
    expect(decided({ ...spec, behavior }, 0, {}, { state, signals: { held: 3 } })).toMatchObject({
      desired: 1,
      winner: "held",
      wants: [{}, { policy: "held", members: 1, reason: "3 requests held" }, {}, {}],
    });
    expect(decided({ ...spec, max: 0 }, 0, {}, { signals: { held: 3 } }).desired).toBe(0);
  });

  test("it stays asleep while nothing is measured", () => {
    expect(decided(spec, 0, {}).desired).toBe(0);
    expect(decided(spec, 0, { requests: [0, 0], cpu: [5, 0] }).desired).toBe(0);
  });
});

const someInput = fc
  .record({
    min: fc.integer({ min: 0, max: 5 }),
    more: fc.integer({ min: 0, max: 10 }),
    desired: fc.integer({ min: 0, max: 20 }),
    serving: fc.integer({ min: 0, max: 20 }),
    metric: fc.constantFrom("cpu", "requests", "queue", "custom/jobs"),
    value: fc.double({ min: 0, max: 1000, noNaN: true }),
    target: fc.integer({ min: 1, max: 100 }),
    ageMs: fc.constantFrom(0, 29_000, 60_000),
    held: fc.integer({ min: 0, max: 2 }),
    outStep: fc.integer({ min: 1, max: 4 }),
    inStep: fc.integer({ min: 1, max: 4 }),
    scaledOutAgo: fc.integer({ min: 0, max: 60 }),
    recent: fc.array(fc.record({ ago: fc.integer({ min: 0, max: 200 }), members: fc.nat({ max: 20 }) })),
  })
  .map((one) => {
    const behavior = { outStep: one.outStep, inStep: one.inStep, outCooldownSeconds: 30 };
    const spec = specOf({
      min: one.min,
      max: one.min + one.more,
      policies: [target(one.metric, one.target)],
      behavior,
    });
    const recentWanted = one.recent.map(({ ago, members }) => ({ at: now - ago * second, members }));
    const state = stateOf(one.desired, { recentWanted, scaledOutAt: now - one.scaledOutAgo * second });
    const signals = signalsOf({ [one.metric]: [one.value, one.serving, one.ageMs] }, { held: one.held });
    return { input: { spec, state, signals, now } satisfies DecisionInput, metric: one.metric };
  });

describe("whatever is measured", () => {
  test("never outside of the bounds", () => {
    fc.assert(
      fc.property(someInput, ({ input }) => {
        const { desired, wanted } = decide(input);
        const { min, max } = input.spec;
        expect([desired >= min, desired <= max, wanted >= min, wanted <= max]).toEqual(Array(4).fill(true));
      }),
    );
  });

  test("a higher value never wants fewer members", () => {
    fc.assert(
      fc.property(someInput, fc.double({ min: 0, max: 500, noNaN: true }), ({ input, metric }, more) => {
        const signal = input.signals.metrics[metric];
        if (!signal) throw new Error(metric);
        const higher = { ...signal, value: signal.value + more };
        const after = decide({ ...input, signals: { ...input.signals, metrics: { [metric]: higher } } });
        const before = decide(input);
        expect(after.wanted).toBeGreaterThanOrEqual(before.wanted);
        expect(after.desired).toBeGreaterThanOrEqual(before.desired);
      }),
    );
  });

  test("steps and stabilisation hold, but for bounds and held requests", () => {
    fc.assert(
      fc.property(someInput, ({ input }) => {
        const { desired: next } = decide(input);
        const { spec, state, signals } = input;
        const floor = Math.max(spec.min, signals.held > 0 ? Math.min(1, spec.max) : 0);
        expect(next).toBeLessThanOrEqual(Math.max(state.desired + spec.behavior.outStep, floor));
        const lately = state.recentWanted.filter(({ at }) => at > now - 120 * second);
        const calmed = Math.max(
          ...lately.map(({ members }) => members),
          state.desired - spec.behavior.inStep,
        );
        expect(next).toBeGreaterThanOrEqual(Math.min(state.desired, spec.max, calmed));
      }),
    );
  });

  test("under constant demand a target policy comes to rest and stays there", () => {
    fc.assert(
      fc.property(someInput, fc.double({ min: 0, max: 400, noNaN: true }), ({ input, metric }, demand) => {
        const spec = { ...input.spec, behavior: { ...input.spec.behavior, ...calm, outCooldownSeconds: 0 } };
        let { desired } = input.state;
        const sizes: number[] = [];
        for (let round = 0; round < 40; round++) {
          const total = isTotal(metric as "requests");
          const value = total ? demand : demand / Math.max(1, desired);
          const signals = signalsOf({ [metric]: [value, desired] });
          ({ desired } = decide({ spec, state: stateOf(desired), signals, now: now + round * second }));
          sizes.push(desired);
        }
        expect(new Set(sizes.slice(20)).size).toBe(1);
      }),
    );
  });
});
