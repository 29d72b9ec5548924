import { expect, it } from "vitest";
import { KeyedLock } from "./keyed-lock.ts";
import { settle } from "./virtual-clock.ts";

it("runs tasks of one key in order, those of others beside, and goes on after a failure", async () => {
  const lock = new KeyedLock();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = lock.run("a", async () => {
    await gate.promise;
    order.push("first");
    throw new Error("broken");
  });
  const second = lock.run("a", async () => order.push("second"));
  await lock.run("b", async () => order.push("beside"));
  await settle();
  expect(order).toEqual(["beside"]);
  gate.resolve();
  await expect(first).rejects.toThrow("broken");
  await second;
  expect(order).toEqual(["beside", "first", "second"]);
});
