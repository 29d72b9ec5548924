import fc from "fast-check";
import { expect, test } from "vitest";
import { closest, didYouMean, editDistance } from "./spelling.ts";

test.each([
  ["lst", "list"],
  ["instnaces", "instances"],
  ["memroy", "memory"],
  ["Count", "count"],
])("%s is close to %s", (text, expected) => {
  expect(closest(text, ["count", "instances", "list", "memory"])).toBe(expected);
});

test("says nothing about what is far away", () => {
  expect(closest("zebra", ["list", "memory"])).toBeUndefined();
  expect(didYouMean("zebra", ["list"])).toBe("");
  expect(didYouMean("lits", ["list"])).toBe(' (did you mean "list"?)');
});

test("the distance is a metric on short words, as far as its definition is one", () => {
  const word = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 6 });
  fc.assert(
    fc.property(word, word, (a, b) => {
      expect(editDistance(a, b)).toBe(editDistance(b, a));
      expect(editDistance(a, b) === 0).toBe(a === b);
      expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
    }),
  );
  expect(editDistance("ab", "ba")).toBe(1);
});
