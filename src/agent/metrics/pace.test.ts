import { expect, test } from "vitest";
import { isDue, memberTicks } from "./pace.ts";

test.each([
  [0, 1],
  [1, 1],
  [100, 1],
  [101, 2],
  [550, 6],
  [1_000, 10],
  [5_000, 10],
])("%d members: every %d s", (members, ticks) => {
  expect(memberTicks(members)).toBe(ticks);
});

test("due at the first tick and at every so many", () => {
  expect([0, 1, 2, 3, 4].filter((tick) => isDue(tick, 2))).toEqual([0, 2, 4]);
});
