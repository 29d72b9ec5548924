import fc from "fast-check";
import { expect, test } from "vitest";
import { seededRandom } from "../core/random.ts";
import { backoffMs } from "./backoff.ts";

test("doubles up to the bound, less at most a half", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2000 }), fc.integer(), (attempt, seed) => {
      const delay = backoffMs({ minMs: 100, maxMs: 30_000 }, attempt, seededRandom(seed));
      const full = Math.min(30_000, 100 * 2 ** Math.min(attempt - 1, 40));
      expect(delay).toBeGreaterThanOrEqual(Math.floor(full / 2));
      expect(delay).toBeLessThanOrEqual(full);
    }),
  );
});

test("what failed together is not tried again together", () => {
  const random = seededRandom(1);
  const delays = new Set(
    Array.from({ length: 20 }, () => backoffMs({ minMs: 1000, maxMs: 9000 }, 3, random)),
  );
  expect(delays.size).toBeGreaterThan(15);
});
