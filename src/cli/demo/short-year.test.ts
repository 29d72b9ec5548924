import { expect, test } from "vitest";
import { lengthOf, planShortYear, stretchAt, toShort } from "./short-year.ts";

const day = (text: string) => Date.parse(`${text}T00:00:00Z`);
const year = planShortYear({
  first: { year: 2026, month: 8 },
  months: 12,
  changes: [day("2026-09-01"), day("2026-10-01"), day("2027-04-01"), day("2027-05-01")],
  busyMs: 60_000,
  quietMs: 5_000,
});

test("months in which something changes take long, others pass quickly", () => {
  const long = year.filter(({ fromMs, untilMs }) => untilMs - fromMs === 60_000).map(({ label }) => label);
  expect(long).toEqual(["Aug", "Sep", "Oct", "Mar", "Apr", "May"]);
  expect(lengthOf(year)).toBe(6 * 60_000 + 6 * 5_000);
  expect(year.map(({ label }) => label).join(" ")).toBe("Aug Sep Oct Nov Dec Jan Feb Mar Apr May Jun Jul");
});

test("moments keep their order and their place in the month", () => {
  expect(toShort(year, day("2026-08-01"))).toBe(0);
  expect(toShort(year, day("2026-09-01"))).toBe(60_000);
  expect(toShort(year, day("2026-09-16"))).toBe(90_000);
  expect(toShort(year, day("2020-01-01"))).toBe(0);
  expect(toShort(year, day("2030-01-01"))).toBe(lengthOf(year));
  expect(stretchAt(year, 61_000)?.label).toBe("Sep");
  expect(stretchAt(year, lengthOf(year))).toBeUndefined();
});
