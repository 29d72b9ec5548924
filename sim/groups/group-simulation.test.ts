import { expect, test } from "vitest";
import { simulateGroups } from "./group-simulation.ts";

/** `node sim/run.ts --groups --days 365` for a year of fifty groups. */
test.each([1, 2, 3])("groups keep their promises through two days of crashes (seed %i)", async (seed) => {
  const { counts } = await simulateGroups({ seed, days: 2, hosts: 3, groups: 8, instances: 60 });
  expect(counts.boots).toBeGreaterThan(60);
  expect(counts.crashes).toBeGreaterThan(50);
  expect(counts.changes).toBeGreaterThan(50);
});

test("the same seed gives the same history", async () => {
  const once = () => simulateGroups({ seed: 9, days: 1, hosts: 2, groups: 4, instances: 20 });
  expect(await once()).toEqual(await once());
});
