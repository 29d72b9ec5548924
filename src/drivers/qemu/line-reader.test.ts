import fc from "fast-check";
import { expect, it } from "vitest";
import { LineReader } from "./line-reader.ts";

it("gives the same lines however the bytes are cut", () => {
  const line = fc.string({ unit: "grapheme" }).map((text) => text.replaceAll("\n", ""));
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.nat(5)), (lines, lengths) => {
      const bytes = Buffer.from(lines.map((each) => `${each}\n`).join(""));
      const found: string[] = [];
      const reader = new LineReader(1_000_000, (each) => found.push(each));
      let at = 0;
      for (const length of [...lengths, bytes.length]) {
        reader.push(bytes.subarray(at, at + length));
        at += length;
      }
      expect(found).toEqual(lines.map((each) => Buffer.from(each).toString()));
    }),
  );
});

it("refuses a line that is too long, complete or not", () => {
  expect(new LineReader(4, () => {}).push(Buffer.from("12345"))).toBe(false);
  expect(new LineReader(4, () => {}).push(Buffer.from("12345\n"))).toBe(false);
  const pieces = new LineReader(4, () => {});
  expect(pieces.push(Buffer.from("123"))).toBe(true);
  expect(pieces.push(Buffer.from("45"))).toBe(false);
});
