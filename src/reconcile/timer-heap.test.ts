import fc from "fast-check";
import { expect, test } from "vitest";
import { VirtualClock } from "../core/virtual-clock.ts";
import { TimerHeap } from "./timer-heap.ts";

test("fires in order of time, an earlier time replaces a later one", async () => {
  const clock = new VirtualClock(0);
  const fired: string[] = [];
  const heap = new TimerHeap(clock, (key) => fired.push(`${key}@${clock.now()}`));
  heap.set("late", 50);
  heap.set("a", 30);
  heap.set("a", 20);
  heap.set("a", 40);
  heap.set("b", 10);
  heap.set("gone", 15);
  heap.cancel("gone");
  await clock.advanceTo(100);
  expect(fired).toEqual(["b@10", "a@20", "late@50"]);
  expect(heap.has("a")).toBe(false);
});

test("agrees with a model under any sequence of set and cancel", async () => {
  const step = fc.record({ key: fc.constantFrom("a", "b", "c", "d"), at: fc.integer({ min: 0, max: 50 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 60 }), async (steps) => {
      const clock = new VirtualClock(0);
      const fired: [string, number][] = [];
      const heap = new TimerHeap(clock, (key) => fired.push([key, clock.now()]));
      const model = new Map<string, number>();
      for (const [{ key, at }, cancel] of steps) {
        if (cancel) {
          heap.cancel(key);
          model.delete(key);
        } else {
          heap.set(key, at);
          model.set(key, Math.min(at, model.get(key) ?? at));
        }
      }
      await clock.advanceTo(100);
      expect(new Map(fired)).toEqual(model);
      expect(fired.map(([, at]) => at)).toEqual(fired.map(([, at]) => at).sort((a, b) => a - b));
    }),
    { numRuns: 60 },
  );
});

test("keeps one timer on the clock, and little memory after many replacements", async () => {
  const clock = new VirtualClock(0);
  const heap = new TimerHeap(clock, () => {});
  for (let i = 0; i < 1000; i++) {
    heap.set(`k${i % 10}`, 5000 - i);
    if (i % 3 === 0) heap.cancel(`k${i % 10}`);
  }
  let timers = 0;
  for (; clock.nextAt() !== undefined; timers++) await clock.advanceTo(clock.nextAt() ?? 0);
  expect(timers).toBeLessThan(20);
});
