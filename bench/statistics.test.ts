import { expect, it } from "vitest";
import { seededRandom } from "../src/core/random.ts";
import { median, percentile, speedUp } from "./statistics.ts";

it("finds medians and percentiles", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(percentile([1, 2, 3, 4], 0.99)).toBe(4);
  expect(percentile([1, 2, 3, 4], 0.5)).toBe(2);
  expect(median([])).toBeNaN();
});

it("brackets a known ratio", () => {
  const random = seededRandom(1);
  const ours = Array.from({ length: 40 }, (_, index) => 100 + (index % 7));
  const { ratio, low, high } = speedUp(
    ours,
    ours.map((value) => value * 3),
    random,
  );
  expect(ratio).toBeCloseTo(3);
  expect(low).toBeLessThanOrEqual(ratio);
  expect(high).toBeGreaterThanOrEqual(ratio);
});
