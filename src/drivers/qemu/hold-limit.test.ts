import { expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { holdLimitMs, withinHold } from "./hold-limit.ts";

const never = (signal: AbortSignal) =>
  new Promise<never>((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });

test("what takes too long ends with an error that says what to do", async () => {
  const clock = new VirtualClock();
  const held = withinHold(clock, new AbortController().signal, never);
  const refused = expect(held).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining("Stop the instance"),
  });
  await clock.advance(holdLimitMs);
  await refused;
});

test("the caller's end counts as well, and no timer is left", async () => {
  const clock = new VirtualClock();
  const caller = new AbortController();
  const held = withinHold(clock, caller.signal, never);
  caller.abort(new Error("enough"));
  await expect(held).rejects.toThrow("enough");
  expect(await withinHold(clock, new AbortController().signal, async () => 1)).toBe(1);
  expect(clock.nextAt()).toBeUndefined();
});
