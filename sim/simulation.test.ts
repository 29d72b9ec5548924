import { expect, test } from "vitest";
import { simulate } from "./simulation.ts";

/** `node sim/run.ts --seeds 1000` for more of them. */
const seeds = [1, 2, 3, 4, 5, 6];

test.each(seeds)(
  "a cluster in turmoil comes to rest, and nothing is lost or doubled (seed %i)",
  async (seed) => {
    const { counts } = await simulate({ seed });
    expect(counts.guestStarts).toBeGreaterThan(0);
  },
);

test("the same seed gives the same history", async () => {
  const [one, other] = [await simulate({ seed: 77 }), await simulate({ seed: 77 })];
  expect(other).toEqual(one);
});
