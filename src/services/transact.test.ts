import { expect, test } from "vitest";
import { StrataError } from "../core/errors.ts";
import { KeyedLock } from "../core/keyed-lock.ts";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import { maxAttempts, transact, unchanged } from "./transact.ts";

const transaction = () => ({
  store: createMemoryStore(),
  locks: new KeyedLock(),
  action: "count",
  lockKey: "count",
});

test("adds from many at once are all counted", async () => {
  const parts = transaction();
  const addOne = () =>
    transact(parts, async () => {
      const entry = await parts.store.get("/count");
      const value = Number(entry?.value ?? 0) + 1;
      return { writes: [{ put: "/count", value, ifRevision: entry?.revision ?? 0 }], result: () => value };
    });
  const results = await Promise.all(Array.from({ length: 100 }, addOne));
  expect((await parts.store.get("/count"))?.value).toBe(100);
  expect(new Set(results).size).toBe(100);
});

test("gives up after a bounded number of lost races, saying so", async () => {
  let rounds = 0;
  const lost = transact(transaction(), async () => {
    rounds++;
    return { writes: [{ put: "/count", value: 1, ifRevision: 77 }], result: () => 1 };
  });
  await expect(lost).rejects.toMatchObject({ code: "Conflict" });
  await expect(lost).rejects.toThrow(/cannot count/);
  expect(rounds).toBe(maxAttempts);
});

test("an error of the attempt is not repeated, and nothing to write is no commit", async () => {
  const parts = transaction();
  let rounds = 0;
  const refused = transact(parts, async () => {
    rounds++;
    throw new StrataError("Conflict", "protected");
  });
  await expect(refused).rejects.toThrow("protected");
  expect(rounds).toBe(1);
  expect(await transact(parts, async () => unchanged("same"))).toBe("same");
  expect(await parts.store.revision()).toBe(0);
});

test("the lock runs one key in order, others meanwhile, and survives failures", async () => {
  const locks = new KeyedLock();
  const log: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = locks.run("a", async () => {
    await gate.promise;
    log.push("first");
    throw new Error("first failed");
  });
  const second = locks.run("a", async () => log.push("second"));
  await locks.run("b", async () => log.push("other key"));
  gate.resolve();
  await expect(first).rejects.toThrow("first failed");
  await second;
  expect(log).toEqual(["other key", "first", "second"]);
});
