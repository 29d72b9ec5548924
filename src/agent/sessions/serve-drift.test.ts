import { expect, test } from "vitest";
import { type Difference, driftReportSchema, maxDifferences } from "../../kinds/drift.ts";
import { firstOf } from "./serve-drift.ts";

const differences = (count: number): Difference[] =>
  Array.from({ length: count }, (_, index) => ({
    ...{ path: `/${index}`, change: "added", type: "file", aspects: [] },
  }));
const rest = { imageDigest: "sha256:0", at: "2026-11-28T12:00:00Z", reading: "idle" };

test("a report has as many differences as fit, and says how many more there are", () => {
  const all = firstOf(differences(maxDifferences));
  expect([all.differences.length, all.more]).toEqual([maxDifferences, undefined]);
  const some = firstOf(differences(maxDifferences + 3));
  expect([some.differences.length, some.differences.at(-1)?.path, some.more]).toEqual([
    ...[maxDifferences, `/${maxDifferences - 1}`, 3],
  ]);
  for (const report of [all, some]) driftReportSchema.parse({ ...rest, ...report });
});
