import fc from "fast-check";
import { expect, test } from "vitest";
import { LastText } from "./last-text.ts";

test("it is the end of all that came", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ maxLength: 30 })),
      fc.integer({ min: 1, max: 20 }),
      (pieces, maxChars) => {
        const last = new LastText(maxChars);
        for (const piece of pieces) last.add(piece);
        expect(last.text).toBe(pieces.join("").slice(-maxChars));
      },
    ),
  );
});

test("a line takes no longer for all that came before it", () => {
  const last = new LastText(4 * 1024 ** 2);
  for (let count = 0; count < 400_000; count++)
    last.add(`${count} is a line of a build that prints very much\n`);
  expect(last.text.endsWith("399999 is a line of a build that prints very much\n")).toBe(true);
});
