import fc from "fast-check";
import { expect, it } from "vitest";
import { placeCards } from "./card-places.ts";
import { cardPorts } from "./command-line.ts";

const cards = (...ports: string[]) => ports.map((port) => ({ port }));

it("gives the first card the place of its own, others the next", () => {
  expect(placeCards(cards("a", "b", "c"), {})).toEqual({ a: 0, b: 1, c: 2 });
  expect(placeCards([], {})).toEqual({});
});

it("keeps places, also when a card between goes, and gives freed ones away", () => {
  expect(placeCards(cards("a", "c"), { a: 0, b: 1, c: 2 })).toEqual({ a: 0, c: 2 });
  expect(placeCards(cards("a", "c", "d"), { a: 0, c: 2 })).toEqual({ a: 0, c: 2, d: 1 });
});

it("does not give away the place of a card that has not left yet", () => {
  expect(placeCards(cards("a", "b"), { a: 0, b: 1 }, [1])).toEqual({ a: 0, b: 2 });
});

it("says that there is no place left", () => {
  const nics = cards(...Array.from({ length: cardPorts + 2 }, (_, index) => `p${index}`));
  expect(() => placeCards(nics, {})).toThrow(expect.objectContaining({ code: "CapacityExceeded" }));
});

it("never gives a place twice", () => {
  const port = fc.constantFrom(..."abcdefgh");
  const places = fc.dictionary(port, fc.integer({ min: 0, max: cardPorts }));
  fc.assert(
    fc.property(fc.uniqueArray(port, { maxLength: cardPorts + 1 }), places, (ports, known) => {
      const placed = placeCards(cards(...ports), known);
      const values = ports.map((each) => placed[each]);
      expect(new Set(values).size).toBe(ports.length);
      expect(values[0] ?? 0).toBe(0);
    }),
  );
});
