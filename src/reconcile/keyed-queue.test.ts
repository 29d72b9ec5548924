import { expect, test } from "vitest";
import { settle, VirtualClock } from "../core/virtual-clock.ts";
import { KeyedQueue, type Outcome } from "./keyed-queue.ts";

/** Work that ends when told to. */
function bench(concurrency = 2, lane: (key: string) => string = () => "") {
  const clock = new VirtualClock(0);
  const started: string[] = [];
  const open = new Map<string, (outcome: Outcome) => void>();
  const queue = new KeyedQueue({
    clock,
    concurrency,
    lane,
    work: (key) => {
      started.push(key);
      expect(open.has(key)).toBe(false); // one at a time
      return new Promise((resolve) => open.set(key, resolve));
    },
  });
  const end = async (key: string, outcome: Outcome = {}) => {
    const resolve = open.get(key);
    open.delete(key);
    resolve?.(outcome);
    await settle();
  };
  return { clock, queue, started, open, end };
}

test("queues a key once, runs one at a time, and again after a hint during its work", async () => {
  const { queue, started, end } = bench();
  queue.hint("a");
  queue.hint("a");
  queue.hint("a");
  expect(started).toEqual(["a"]);
  await end("a");
  expect(started).toEqual(["a", "a"]);
  await end("a");
  expect(started).toEqual(["a", "a"]);
  expect(queue.size).toBe(0);
});

test("a lane is bounded and serves in order; lanes do not wait for each other", async () => {
  const { queue, started, end } = bench(2, (key) => (key.startsWith("vm") ? "vm" : "container"));
  for (const key of ["vm1", "vm2", "vm3", "vm4", "c1"]) queue.hint(key);
  expect(started).toEqual(["vm1", "vm2", "c1"]);
  await end("vm2");
  await end("vm1");
  expect(started).toEqual(["vm1", "vm2", "c1", "vm3", "vm4"]);
});

test("a held key waits for its time, unless the hint is urgent", async () => {
  const { queue, started, end, clock } = bench();
  queue.hint("a");
  await end("a", { againAfterMs: 1000, hold: true });
  queue.hint("a");
  await clock.advance(999);
  expect(started).toEqual(["a"]);
  await clock.advance(1);
  expect(started).toEqual(["a", "a"]);
  await end("a", { againAfterMs: 1000, hold: true });
  queue.hint("a", true);
  expect(started).toEqual(["a", "a", "a"]);
  queue.hint("a", true);
  await end("a", { againAfterMs: 1000, hold: true }); // hinted urgently meanwhile
  expect(started).toHaveLength(4);
  queue.hint("a");
  await end("a", { againAfterMs: 1000, hold: true }); // hinted meanwhile, not urgently
  expect(started).toHaveLength(4);
});

test("a hint replaces the wait of a key that is not held", async () => {
  const { queue, started, end, clock } = bench();
  queue.hint("a");
  await end("a", { againAfterMs: 1000 });
  queue.hint("a");
  expect(started).toHaveLength(2);
  await end("a");
  await clock.advance(5000);
  expect(started).toHaveLength(2);
});

test("stop waits for the work under way and starts nothing more", async () => {
  const { queue, started, end } = bench(1);
  queue.hint("a");
  queue.hint("b");
  let stopped = false;
  const stopping = queue.stop().then(() => {
    stopped = true;
  });
  queue.hint("c");
  await settle();
  expect(stopped).toBe(false);
  await end("a", { againAfterMs: 1 });
  await stopping;
  expect(started).toEqual(["a"]);
});
