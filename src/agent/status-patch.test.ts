import fc from "fast-check";
import { expect, test } from "vitest";
import { isJsonObject, type Json, mergePatch } from "../core/json.ts";
import { statusPatch } from "./status-patch.ts";

const noNulls = (value: Json): boolean =>
  value !== null && (!isJsonObject(value) || Object.values(value).every(noNulls));
const status = fc
  .dictionary(fc.constantFrom("a", "b", "c", "d"), fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<Json>)
  // As it comes over the wire: no -0, no prototypes.
  .map((value) => JSON.parse(JSON.stringify(value).replaceAll("__proto__", "proto")) as Record<string, Json>)
  .filter(noNulls);

test("applied to the one it gives the other; equal ones give no patch", () => {
  fc.assert(
    fc.property(status, status, (before, after) => {
      const patch = statusPatch(before, after);
      if (patch) expect(mergePatch(before, patch)).toEqual(after);
      else expect(before).toEqual(after);
      expect(statusPatch(before, structuredClone(before))).toBeUndefined();
    }),
    {
      examples: [
        [{ c: { valueOf: [] } }, { c: {} }],
        [{ c: {} }, { c: { valueOf: [] } }],
      ],
    },
  );
});

test("names only what differs, removes what is undefined", () => {
  const before = { state: "starting", handle: { a: 1, b: 2 }, progress: { step: "x" } };
  const after = { state: "starting", handle: { a: 1, c: 3 }, progress: undefined };
  expect(statusPatch(before, after)).toEqual({ handle: { b: null, c: 3 }, progress: null });
});
