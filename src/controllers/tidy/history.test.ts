import { expect, test } from "vitest";
import { keptHistoryMs, keptRevisions, planHistory } from "./history.ts";

const now = 10_000_000;
const ago = (ms: number, revision: number) => ({ at: now - ms, revision });

test.each([
  ["nothing is old", [ago(keptHistoryMs - 1, 5), ago(0, 9)], 0, []],
  [
    "the newest that is old enough",
    [ago(keptHistoryMs + 60_000, 3), ago(keptHistoryMs, 5), ago(0, 9)],
    0,
    [5],
  ],
  ["done already", [ago(keptHistoryMs, 5), ago(0, 9)], 5, []],
  ["too much in a short time", [ago(0, keptRevisions + 7)], 0, [7]],
  ["nothing known", [], 0, []],
])("%s", (_name, samples, compactedBefore, actions) => {
  expect(planHistory({ samples, compactedBefore }, now).actions).toEqual(actions);
});
