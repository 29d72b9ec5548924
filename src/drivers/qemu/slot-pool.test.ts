import { expect, it } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { SlotPool } from "./slot-pool.ts";

it("takes the slot first that has been free for longest", async () => {
  const clock = new VirtualClock();
  const pool = new SlotPool(3);
  expect([await pool.take(clock, 0), await pool.take(clock, 0)]).toEqual([0, 1]);
  pool.give(0);
  expect([await pool.take(clock, 0), await pool.take(clock, 0)]).toEqual([2, 0]);
});

it("waits for a slot in the order of the calls, and not for ever", async () => {
  const clock = new VirtualClock();
  const pool = new SlotPool(1);
  expect(await pool.take(clock, 0)).toBe(0);
  const [first, second, third] = [pool.take(clock, 100), pool.take(clock, 500), pool.take(clock, 500)];
  await clock.advance(100);
  expect(await first).toBeUndefined();
  pool.give(0);
  expect(await second).toBe(0);
  pool.give(0);
  expect(await third).toBe(0);
});
