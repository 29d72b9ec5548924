import { describe, expect, test } from "vitest";
import type { Outcome } from "./network-checks.ts";
import { addOutcome, emptyTally, isNews, nextDelayMs, patienceMs, type Tally } from "./tally.ts";

const good: Outcome = { healthy: true };
const bad: Outcome = { healthy: false, saw: "GET / on port 80 was answered with status 503" };

/** What is told after each outcome (+ or -), a second apart. */
function story(outcomes: string, rules: { rise: number; fall: number }, from: Tally = emptyTally): string[] {
  let tally = from;
  return [...outcomes].map((sign, index) => {
    tally = addOutcome(tally, sign === "+" ? good : bad, rules, index * 1_000, index * 1_000);
    return tally.result;
  });
}

test.each<[string, string, number, number, string]>([
  ["one success is enough by default", "+", 1, 3, "healthy"],
  ["rise successes in a row", "+-++", 2, 3, "unknown unknown unknown healthy"],
  ["fall failures in a row", "+--+---", 1, 3, "healthy healthy healthy healthy healthy healthy unhealthy"],
  ["back to health after rise successes", "+-++", 2, 1, "unknown unknown unknown healthy"],
  ["a start is given some time", "---", 1, 1, "unknown unknown unhealthy"],
  [
    "unhealthy until it has risen again",
    "+-+-++",
    2,
    1,
    "unknown unknown unknown unhealthy unhealthy healthy",
  ],
])("%s", (_name, outcomes, rise, fall, expected) => {
  expect(story(outcomes, { rise, fall }).join(" ")).toBe(expected);
});

test("what was seen, and since when, stays until it is healthy", () => {
  const rules = { rise: 2, fall: 1 };
  let tally = addOutcome({ ...emptyTally, result: "healthy" }, bad, rules, 5_000, 9_000);
  expect(tally).toMatchObject({ result: "unhealthy", failingSince: 5_000, saw: bad.saw });
  tally = addOutcome(tally, { healthy: false, saw: "port 80 refused the connection" }, rules, 6_000, 9_000);
  expect(tally).toMatchObject({ failingSince: 5_000, saw: "port 80 refused the connection", failures: 2 });
  tally = addOutcome(tally, good, rules, 7_000, 9_000);
  expect(tally).toMatchObject({ result: "unhealthy", saw: "port 80 refused the connection" });
  tally = addOutcome(tally, good, rules, 8_000, 9_000);
  expect(tally).toEqual({ result: "healthy", successes: 2, failures: 0 });
});

test("what can never succeed is told at once", () => {
  const outcome = { healthy: false, saw: "no", unsupported: true } as const;
  const tally = addOutcome(emptyTally, outcome, { rise: 1, fall: 1 }, 0, 0);
  expect(tally).toMatchObject({ result: "unhealthy", unsupported: true });
});

describe("news", () => {
  const unhealthy: Tally = { result: "unhealthy", successes: 0, failures: 3, saw: "a" };
  test.each<[string, Tally, Tally, boolean]>([
    ["another result", emptyTally, unhealthy, true],
    ["something else is seen", unhealthy, { ...unhealthy, saw: "b" }, true],
    ["the same again", unhealthy, { ...unhealthy, failures: 4 }, false],
    [
      "a failure that does not count yet",
      { ...unhealthy, result: "healthy" },
      { ...unhealthy, result: "healthy", saw: "b" },
      false,
    ],
  ])("%s", (_name, before, after, news) => {
    expect(isNews(before, after)).toBe(news);
  });
});

test("often at first, then as asked for; a command not quite so often", () => {
  const check = { type: "http", intervalMs: 5_000 } as const;
  expect([0, 500, 4_000].map((ageMs) => nextDelayMs(emptyTally, check, ageMs))).toEqual([50, 50, 200]);
  expect(nextDelayMs(emptyTally, check, 60_000)).toBe(1_000);
  expect(nextDelayMs(emptyTally, { ...check, type: "command" }, 0)).toBe(250);
  expect(nextDelayMs(emptyTally, { ...check, intervalMs: 100 }, 9_000)).toBe(100);
  expect(nextDelayMs({ ...emptyTally, result: "healthy" }, check, 1)).toBe(5_000);
  expect(patienceMs).toBeGreaterThan(1_000);
});
