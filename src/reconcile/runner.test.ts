import { expect, test, vi } from "vitest";
import { Hints } from "../core/hints.ts";
import { silentLogger } from "../core/logger.ts";
import { seededRandom } from "../core/random.ts";
import { settle, VirtualClock } from "../core/virtual-clock.ts";
import type { Failure, Plan, Reconciler } from "./reconciler.ts";
import { type RunnerOptions, runReconciler } from "./runner.ts";

interface World {
  key: string;
  value: number;
}
type Step = "step";

/** A world of counters that the reconciler raises to a target, one action at a time. */
class Counters implements Reconciler<World, { key: string; step: Step }, number> {
  readonly name = "counters";
  readonly hints = new Hints();
  readonly urgent = new Hints();
  readonly targets = new Map<string, number>();
  readonly values = new Map<string, number>();
  readonly log: string[] = [];
  readonly failures: Failure<World>[] = [];
  reportAfterMs: number | undefined;
  step: (key: string, signal: AbortSignal) => Promise<void> = async () => {};
  readonly watches = [
    { name: "hints", keys: (signal: AbortSignal) => this.hints.keys(signal, this.targets.keys()) },
    { name: "urgent", urgent: true, keys: (signal: AbortSignal) => this.urgent.keys(signal) },
  ];

  async observe(key: string): Promise<World> {
    this.log.push(`observe ${key}`);
    return { key, value: this.values.get(key) ?? 0 };
  }
  plan(world: World): Plan<{ key: string; step: Step }, number> {
    const target = this.targets.get(world.key);
    if (target === undefined) return { status: undefined, actions: [] };
    const actions = world.value < target ? [{ key: world.key, step: "step" as const }] : [];
    const { reportAfterMs } = this;
    return { status: world.value, actions, ...(reportAfterMs === undefined ? {} : { reportAfterMs }) };
  }
  async execute({ key }: { key: string }, signal: AbortSignal) {
    this.log.push(`step ${key}`);
    await this.step(key, signal);
    this.values.set(key, (this.values.get(key) ?? 0) + 1);
  }
  async report(key: string, _world: World, status: number) {
    this.log.push(`report ${key} ${status}`);
  }
  async failed(_key: string, failure: Failure<World>) {
    this.failures.push(failure);
  }
}

function bench(counters: Counters, options: Partial<RunnerOptions> = {}) {
  const clock = new VirtualClock(0);
  const abort = new AbortController();
  const running = runReconciler(
    counters,
    { clock, random: seededRandom(7), logger: silentLogger, ...options },
    abort.signal,
  );
  const stop = async () => {
    abort.abort();
    await running;
  };
  return { clock, abort, running, stop };
}

test("looks at every key at the start and again at once until nothing is left to do", async () => {
  const counters = new Counters();
  counters.targets.set("a", 2);
  const { stop } = bench(counters);
  await settle();
  expect(counters.log).toEqual([
    ...["observe a", "report a 0", "step a"],
    ...["observe a", "report a 1", "step a"],
    ...["observe a", "report a 2"],
  ]);
  await stop();
});

test("one change among many costs one look", async () => {
  const counters = new Counters();
  for (let i = 0; i < 1000; i++) counters.targets.set(`k${i}`, 0);
  const { stop } = bench(counters);
  await settle();
  counters.log.length = 0;
  counters.hints.hint("k500");
  await settle();
  expect(counters.log).toEqual(["observe k500", "report k500 0"]);
  await stop();
});

test("a failing key backs off with growing delays, others go on; success forgets the failures", async () => {
  const counters = new Counters();
  counters.targets.set("bad", 1).set("good", 1);
  let failing = true;
  counters.step = async (key) => {
    if (failing && key === "bad") throw new Error("no");
  };
  const { clock, stop } = bench(counters, { backoff: { minMs: 1000, maxMs: 8000 } });
  await settle();
  expect(counters.values.get("good")).toBe(1);
  await clock.advance(40_000);
  const delays = counters.failures.map((failure) => failure.retryAfterMs);
  expect(delays.length).toBeGreaterThan(5);
  expect(delays.length).toBeLessThan(16);
  expect(delays[0]).toBeLessThanOrEqual(1000);
  expect(Math.max(...delays)).toBeLessThanOrEqual(8000);
  expect(delays.at(-1)).toBeGreaterThanOrEqual(4000);
  expect(counters.failures.map((failure) => failure.attempt)).toEqual(delays.map((_, index) => index + 1));
  failing = false;
  await clock.advance(8000);
  expect(counters.values.get("bad")).toBe(1);
  failing = true;
  counters.targets.set("bad", 2);
  counters.hints.hint("bad");
  await settle();
  expect(counters.failures.at(-1)?.attempt).toBe(1);
  await stop();
});

test("a hint does not cut a back-off short, an urgent one does", async () => {
  const counters = new Counters();
  counters.targets.set("a", 1);
  counters.step = async () => {
    throw new Error("no");
  };
  const { stop } = bench(counters, { backoff: { minMs: 5000, maxMs: 5000 } });
  await settle();
  for (let i = 0; i < 10; i++) {
    counters.hints.hint("a");
    await settle();
  }
  expect(counters.failures).toHaveLength(1);
  counters.urgent.hint("a");
  await settle();
  expect(counters.failures).toHaveLength(2);
  await stop();
});

test("resync looks at keys with a status, not at those with nothing to report", async () => {
  const counters = new Counters();
  counters.targets.set("a", 0);
  const { clock, stop } = bench(counters, { resyncMs: 1000 });
  await settle();
  counters.hints.hint("unknown");
  await settle();
  counters.log.length = 0;
  await clock.advance(10_000);
  const looks = counters.log.filter((line) => line === "observe a").length;
  expect(looks).toBeGreaterThanOrEqual(9);
  expect(looks).toBeLessThanOrEqual(12);
  expect(counters.log).not.toContain("observe unknown");
  await stop();
});

test("recheckAfterMs comes before the resync", async () => {
  const counters = new Counters();
  counters.targets.set("a", 0);
  const plan = vi.spyOn(counters, "plan");
  plan.mockReturnValue({ status: 0, actions: [], recheckAfterMs: 10 });
  const { clock, stop } = bench(counters);
  await settle();
  await clock.advance(100);
  expect(plan).toHaveBeenCalledTimes(11);
  await stop();
});

test("a watch that ends or throws is started again", async () => {
  const counters = new Counters();
  let starts = 0;
  const watch = {
    name: "broken",
    async *keys() {
      starts++;
      if (starts === 1) throw new Error("connection lost");
      yield `k${starts}`;
    },
  };
  counters.watches.push(watch as never);
  const { clock, stop } = bench(counters);
  await settle();
  await clock.advance(30_000);
  expect(starts).toBeGreaterThan(5);
  expect(starts).toBeLessThan(2000);
  expect(counters.log).toContain("observe k2");
  await stop();
});

test("stopping aborts the action under way and waits for it", async () => {
  const counters = new Counters();
  counters.targets.set("a", 1);
  let ended = false;
  counters.step = async (_key, signal) => {
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    await settle();
    ended = true;
  };
  const { stop } = bench(counters);
  await settle();
  await stop();
  expect(ended).toBe(true);
  expect(counters.failures).toEqual([]);
});

test("an obsolete round is aborted and started over without back-off", async () => {
  const counters = new Counters();
  counters.targets.set("a", 1);
  const stuck = (signal: AbortSignal) =>
    new Promise<void>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  counters.step = (_key, signal) => stuck(signal);
  Object.assign(counters, { obsolete: (key: string) => !counters.targets.has(key) });
  const { stop } = bench(counters);
  await settle();
  counters.hints.hint("a");
  await settle();
  expect(counters.log).toEqual(["observe a", "report a 0", "step a"]);
  counters.targets.delete("a");
  counters.hints.hint("a");
  await settle();
  expect(counters.log.slice(3, 4)).toEqual(["observe a"]);
  expect(counters.failures).toEqual([]);
  await stop();
});

test("news beside actions are told when these take long, and dropped when they do not", async () => {
  const counters = new Counters();
  counters.reportAfterMs = 100;
  counters.targets.set("quick", 1);
  const { clock, stop } = bench(counters);
  counters.step = (key) => (key === "slow" ? clock.sleep(500) : Promise.resolve());
  await settle();
  expect(counters.log).toEqual(["observe quick", "step quick", "observe quick", "report quick 1"]);
  counters.log.length = 0;
  counters.targets.set("slow", 1);
  counters.hints.hint("slow");
  await settle();
  await clock.advance(99);
  expect(counters.log).toEqual(["observe slow", "step slow"]);
  await clock.advance(1);
  expect(counters.log).toEqual(["observe slow", "step slow", "report slow 0"]);
  await clock.advance(400);
  expect(counters.log.slice(3)).toEqual(["observe slow", "report slow 1"]);
  await stop();
});

test("a round ends only when actions and the news beside them have ended, and fails with either", async () => {
  const counters = new Counters();
  counters.reportAfterMs = 10;
  counters.targets.set("a", 1);
  const { clock, stop } = bench(counters, { backoff: { minMs: 10_000, maxMs: 10_000 } });
  counters.step = () => clock.sleep(20);
  counters.report = async () => {
    await clock.sleep(1_000);
    throw new Error("not written");
  };
  await settle();
  await clock.advance(500);
  expect(counters.log).toEqual(["observe a", "step a"]);
  expect(counters.failures).toEqual([]);
  await clock.advance(510);
  expect(counters.failures).toHaveLength(1);
  await stop();
});

test("a plan without end is stopped and backs off", async () => {
  const counters = new Counters();
  counters.targets.set("a", Number.POSITIVE_INFINITY);
  const { stop } = bench(counters);
  await settle();
  expect(counters.values.get("a")).toBe(32);
  expect(counters.failures).toHaveLength(1);
  await stop();
});

test("the hook after an action can fail the round: the action's effect is found, not repeated", async () => {
  const counters = new Counters();
  counters.targets.set("a", 1);
  let crashes = 0;
  const afterAction = () => {
    if (crashes++ === 0) throw new Error("crash");
  };
  const { clock, stop } = bench(counters, { hooks: { afterAction } });
  await settle();
  await clock.advance(1000);
  expect(counters.values.get("a")).toBe(1);
  expect(counters.log.filter((line) => line === "step a")).toHaveLength(1);
  await stop();
});
