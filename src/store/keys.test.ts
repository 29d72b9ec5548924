import fc from "fast-check";
import { expect, test } from "vitest";
import { compareKeys, keySuccessor, prefixEnd } from "./keys.ts";

/** Dense around the borders that matter: NUL, the ASCII end, the surrogates' gap, the end of the BMP, the last one. */
const point = fc.constantFrom(
  "\u0000",
  "a",
  "b",
  "\u007f",
  "\u0080",
  "\ud7ff",
  "\ue000",
  "\uffff",
  "😀",
  "\u{10ffff}",
);
const text = fc.oneof(
  fc.array(point, { maxLength: 4 }).map((points) => points.join("")),
  fc.string({ unit: "binary" }),
);

const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

test("compareKeys is the order of the UTF-8 bytes", () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(Math.sign(compareKeys(a, b))).toBe(byBytes(a, b));
    }),
  );
});

test("what starts with a prefix is exactly what lies from it to prefixEnd", () => {
  fc.assert(
    fc.property(text, text, fc.boolean(), (prefix, other, extend) => {
      const key = extend ? prefix + other : other;
      const end = prefixEnd(prefix);
      const inside = byBytes(key, prefix) >= 0 && (end === undefined || byBytes(key, end) < 0);
      expect(inside).toBe(key.startsWith(prefix));
    }),
  );
});

test("prefixEnd is well-formed, and undefined where nothing is greater", () => {
  expect(prefixEnd("a/")).toBe("a0");
  expect(prefixEnd("\ud7ff")).toBe("\ue000");
  expect(prefixEnd("a\u{10ffff}")).toBe("b");
  expect(prefixEnd("")).toBeUndefined();
  expect(prefixEnd("\u{10ffff}\u{10ffff}")).toBeUndefined();
});

test("nothing lies between a key and its successor", () => {
  fc.assert(
    fc.property(text, text, (key, other) => {
      expect(byBytes(keySuccessor(key), key)).toBe(1);
      expect(byBytes(other, key) > 0 && byBytes(other, keySuccessor(key)) < 0).toBe(false);
    }),
  );
});
