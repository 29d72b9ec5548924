import { expect, test } from "vitest";
import { columnsOf, outline, type Scale, steps } from "./envelope.ts";
import { ticksBetween } from "./ticks.ts";

const at = (text: string) => Temporal.ZonedDateTime.from(`${text}[Europe/Berlin]`).epochMilliseconds;
const labels = (from: string, until: string, most = 16) =>
  ticksBetween(at(from), at(until), "Europe/Berlin", most).map(({ label }) => label);

test.each([
  [
    "2026-12-15",
    "2027-03-20",
    [
      "21 Dec",
      "28 Dec",
      "4 Jan",
      "11 Jan",
      "18 Jan",
      "25 Jan",
      "1 Feb",
      "8 Feb",
      "15 Feb",
      "22 Feb",
      "1 Mar",
      "8 Mar",
      "15 Mar",
    ],
  ],
  ["2026-11-28", "2027-04-01", ["Dec", "Jan 2027", "Feb", "Mar", "Apr"]],
  ["2026-01-01", "2031-01-01", ["2026", "2027", "2028", "2029", "2030", "2031"]],
  ["2026-03-29T00:00", "2026-03-29T05:00", ["00:00", "01:00", "03:00", "04:00", "05:00"]],
  ["2026-03-29T09:59:45", "2026-03-29T10:00:05", ["09:59:50", "10:00:00"]],
])("from %s to %s", (from, until, expected) => {
  const most = expected.includes("Dec") || expected.includes("2026") ? 6 : 16;
  expect(labels(from, until, most)).toEqual(expected);
});

const scale: Scale = { left: 10, columns: 20, from: 0, until: 200, base: 50, y: (value) => 50 - value };

test("a single change is a step, what goes back and forth within a few columns is a band", () => {
  const once = columnsOf(
    [
      { from: 0, until: 100, value: 1 },
      { from: 100, until: 200, value: 5 },
    ],
    scale,
  );
  expect(once.low).toEqual(once.high);
  expect(steps(once.high, scale)).toBe("M10 49L20 49L20 45L30 45");
  expect(outline(once.low, scale)).toBe("M10 49L20 49L20 45L30 45L30 50L10 50Z");
  const often = columnsOf(
    Array.from({ length: 20 }, (_, index) => ({
      from: index * 10,
      until: index * 10 + 10,
      value: index % 2,
    })),
    scale,
  );
  expect(often).toEqual({ low: Array(20).fill(0), high: Array(20).fill(1) });
});

test("what is shorter than a column is not lost", () => {
  const spans = [
    { from: 0, until: 101, value: 0 },
    { from: 101, until: 102, value: 9 },
    { from: 102, until: 200, value: 0 },
  ];
  expect(Math.max(...columnsOf(spans, scale).high)).toBe(9);
});
