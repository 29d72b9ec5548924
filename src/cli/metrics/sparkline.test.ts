import { describe, expect, test } from "vitest";
import { parseDuration } from "./duration.ts";
import { bySteps, sparkline } from "./sparkline.ts";
import { valueText } from "./values.ts";

test.each<[string, (number | undefined)[], string]>([
  ["from nothing to the largest", [0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"],
  ["gaps stay blank", [7, undefined, 0], "█ ▁"],
  ["nothing but zero", [0, 0], "▁▁"],
  ["all the same", [50, 50], "██"],
  ["below zero", [-7, 0], "▁█"],
  ["nothing", [], ""],
])("a line: %s", (_name, values, line) => {
  expect(sparkline(values)).toBe(line);
});

test("points by steps, with gaps", () => {
  const points = [
    { at: 1_000, mean: 5 },
    { at: 3_000, mean: 6 },
  ];
  const range = { from: 0, until: 4_500, stepMs: 1_000 };
  expect(bySteps(points, range)).toEqual([undefined, 5, undefined, 6, undefined]);
});

describe("values", () => {
  test.each([
    [12.345, "percent", "12.3 %"],
    [100, "percent", "100 %"],
    [1536, "mebibytes", "1.5 GiB"],
    [0.5, "mebibytes", "512 KiB"],
    [0, "bytes/s", "0 B/s"],
    [2048, "bytes/s", "2 KiB/s"],
    [0.25, "per second", "0.3/s"],
    [1234.5, "ms", "1235 ms"],
    [3, "count", "3"],
    [undefined, "count", "-"],
  ] as const)("%s %s is %s", (value, unit, text) => {
    expect(valueText(value, unit)).toBe(text);
  });
});

test.each([
  ["90s", 90_000],
  ["15m", 900_000],
  ["2h", 7_200_000],
  ["7d", 604_800_000],
])("%s", (text, ms) => {
  expect(parseDuration("since", text)).toBe(ms);
});

test.each(["", "5", "h", "0m", "-1h", "1w", "1.5h"])("%j is no duration", (text) => {
  expect(() => parseDuration("since", text)).toThrow(/--since must be a number with s, m, h or d/);
});
