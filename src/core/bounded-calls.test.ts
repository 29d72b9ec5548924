import { expect, it } from "vitest";
import { BoundedCalls } from "./bounded-calls.ts";
import { settle, VirtualClock } from "./virtual-clock.ts";

const never = () => new Promise<never>(() => {});

it("gives answers and failures as they come", async () => {
  const calls = new BoundedCalls(new VirtualClock(), 2_000);
  expect(await calls.ask("a", async () => 1)).toEqual({ answer: 1 });
  await expect(calls.ask("a", () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
  expect(await calls.ask("a", async () => 2)).toEqual({ answer: 2 });
});

it("waits no longer than the limit, and does not ask again before there was an answer", async () => {
  const clock = new VirtualClock();
  const calls = new BoundedCalls(clock, 2_000);
  const late = Promise.withResolvers<number>();
  const first = calls.ask("a", () => late.promise);
  expect(await calls.ask("b", async () => "there")).toEqual({ answer: "there" });
  await clock.advance(2_000);
  expect(await first).toBeUndefined();
  expect(await calls.ask("a", never)).toBeUndefined();
  late.resolve(3);
  await settle();
  expect(await calls.ask("a", async () => 4)).toEqual({ answer: 4 });
});
