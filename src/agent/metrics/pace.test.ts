import { expect, test } from "vitest";
import { newUid } from "../../core/ids.ts";
import { seededRandom } from "../../core/random.ts";
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

test("those of a slow pace are spread over the ticks", () => {
  const random = seededRandom(1);
  const uids = Array.from({ length: 1_000 }, () => newUid(random));
  const turns = Array.from({ length: 10 }, (_, tick) => uids.filter((uid) => isDue(tick, 10, uid)).length);
  expect(turns.reduce((sum, count) => sum + count)).toBe(1_000);
  expect(Math.max(...turns)).toBeLessThan(150);
});

test("due at the first tick and at every so many", () => {
  expect([0, 1, 2, 3, 4].filter((tick) => isDue(tick, 2))).toEqual([0, 2, 4]);
});
