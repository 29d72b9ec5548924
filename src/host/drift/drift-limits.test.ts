import { expect, test } from "vitest";
import { DriftBudget, driftLimits } from "./drift-limits.ts";

const refused = (limit: number) =>
  expect.objectContaining({ code: "Unsupported", message: expect.stringContaining(`${limit}`) });

test("as many paths as the limit says, and no more", () => {
  const budget = new DriftBudget();
  for (let number = 0; number < driftLimits.entries; number++) budget.path("a");
  expect(() => budget.path("a")).toThrow(refused(driftLimits.entries));
});

test("a path is as long as the kernel takes, in bytes and not in letters", () => {
  const budget = new DriftBudget();
  budget.path("ä".repeat(driftLimits.pathBytes / 2));
  expect(() => budget.path(`${"ä".repeat(driftLimits.pathBytes / 2)}a`)).toThrow(
    refused(driftLimits.pathBytes),
  );
});

test("long paths and long texts have one limit together", () => {
  const budget = new DriftBudget();
  budget.text(driftLimits.textBytes - driftLimits.pathBytes);
  budget.path("a".repeat(driftLimits.pathBytes));
  expect(() => budget.path("a")).toThrow(refused(64));
});
