import { expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { type ErrorCode, StrataError } from "../core/errors.ts";
import { retrying } from "./watching.ts";

const limits = () => ({
  clock: systemClock,
  signal: new AbortController().signal,
  deadlineMs: systemClock.monotonicMs() + 5_000,
});

async function triesOf(code: ErrorCode, fields: { path: string; message: string }[] = []): Promise<number> {
  let tries = 0;
  await retrying(async () => {
    tries++;
    if (tries < 3) throw new StrataError(code, "not now", { fields });
  }, limits()).catch(() => {});
  return tries;
}

test("what passes by itself is tried again", async () => {
  expect(await triesOf("Unavailable")).toBe(3);
  expect(await triesOf("Conflict")).toBe(3);
});

test("a conflict about what was written, such as a port that is taken, is told at once", async () => {
  expect(await triesOf("Conflict", [{ path: "spec.port", message: "is taken" }])).toBe(1);
  expect(await triesOf("Invalid")).toBe(1);
});
