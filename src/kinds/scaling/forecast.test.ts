import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { learn, type Model, type Point, peak, predict } from "./forecast.ts";
import { weightedMedian } from "./forecast-methods.ts";
import { scoreTable, seriesNames, walkForward } from "./testing-walk-forward.ts";

const hourMs = 3_600_000;
const weekMs = 168 * hourMs;
const start = Temporal.Instant.from("2026-01-05T00:00:00Z").epochMilliseconds;

/** Hourly points from a Monday on. */
function record(weeks: number, value: (hour: number, week: number, index: number) => number): Point[] {
  return Array.from({ length: weeks * 168 }, (_, index) => ({
    at: start + index * hourMs,
    value: value(index % 168, Math.floor(index / 168), index),
  }));
}

function learned(points: readonly Point[], timeZone = "UTC"): Model {
  const model = learn(points, { timeZone });
  if (!model) throw new Error("too short");
  return model;
}

const office = (hour: number) => (hour < 120 && hour % 24 >= 8 && hour % 24 < 18 ? 100 : 10);
/** Between -1 and 1, another one for each index. */
const noise = (index: number) => Math.sin(index * 12.9898) * Math.sin(index * 78.233 + 1);

describe("the recorded series", () => {
  test("are forecast better than by last week, and docs/forecast.md tells the same", async () => {
    const scores = (await Promise.all(seriesNames.map(walkForward))).flat();
    const better = seriesNames.filter((name) =>
      scores.every(({ series, ratio }) => series !== name || ratio < 0.95),
    );
    expect(better.length).toBeGreaterThanOrEqual(2);
    const document = await readFile(new URL("../../../docs/forecast.md", import.meta.url), "utf8");
    expect(document).toContain(scoreTable(scores).join("\n"));
  }, 120_000);
});

describe("a model", () => {
  test("needs two weeks", () => {
    expect(learn([])).toBeUndefined();
    expect(learn(record(2, office).slice(1))).toBeUndefined();
    expect(learn(record(2, office))).toBeDefined();
  });

  test("of what repeats exactly is last week itself, without error", () => {
    const model = learned(record(5, office));
    expect(model.horizons.map(({ weights }) => weights)).toEqual(Array(3).fill({ "last-week": 1 }));
    expect(model.horizons[0]?.error).toEqual({ mape: 0, mase: 1 });
    const at = start + 5 * weekMs + 9 * hourMs;
    expect(predict(model, at)).toMatchObject({ value: 100, low: 100, high: 100 });
    expect(predict(model, at + 10 * hourMs).value).toBe(10);
  });

  test("follows the local week over a change of daylight saving", () => {
    const zone = "Europe/Berlin";
    const local = (at: number) => Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(zone);
    const points = record(11, () => 0).map(({ at }) => ({ at, value: local(at).hour === 9 ? 100 : 1 }));
    const model = learned(points, zone);
    const sunday = Temporal.ZonedDateTime.from(`2026-03-29T09:00[${zone}]`).epochMilliseconds;
    expect(predict(model, sunday).value).toBe(100);
    expect(predict(model, sunday + hourMs).value).toBe(1);
  });

  test("grows with demand", () => {
    const points = record(8, (hour, week, index) => office(hour) * 1.2 ** week * (1 + 0.1 * noise(index)));
    const model = learned(points);
    const expected = 100 * 1.2 ** 8;
    const { value } = predict(model, start + 8 * weekMs + 10 * hourMs);
    expect(Math.abs(value - expected) / expected).toBeLessThan(0.2);
    expect(model.horizons.every(({ error }) => error.mase < 0.7)).toBe(true);
  });

  test("is not led astray by outliers and gaps", () => {
    const clean = record(8, (hour, _, index) => office(hour) * (1 + 0.1 * noise(index)));
    const spoilt = clean
      .map((point, index) => (index % 97 === 5 ? { ...point, value: point.value * 50 } : point))
      .filter((_, index) => index % 11 !== 0 && (index < 900 || index > 960));
    const model = learned(spoilt);
    for (const hours of [2, 9, 12, 20]) {
      const at = start + 8 * weekMs + hours * hourMs;
      expect(predict(model, at).value / predict(learned(clean), at).value).toBeGreaterThan(0.7);
      expect(predict(model, at).value / predict(learned(clean), at).value).toBeLessThan(1.5);
    }
  });

  test("is plain JSON", () => {
    const model = learned(record(4, (hour, week) => office(hour) + week));
    const copy = JSON.parse(JSON.stringify(model)) as Model;
    const at = start + 4 * weekMs + 30 * hourMs;
    expect(predict(copy, at)).toEqual(predict(model, at));
  });

  test("of finer points has the steps that are asked for", () => {
    const points = Array.from({ length: 2 * 168 * 60 }, (_, minute) => ({
      at: start + minute * 60_000,
      value: minute % 1440 < 15 ? 60 : 0,
    }));
    const model = learn(points, { stepMs: 15 * 60_000 });
    if (!model) throw new Error("too short");
    const next = start + 2 * weekMs;
    expect([0, 14, 15, 30].map((minute) => predict(model, next + minute * 60_000).value)).toEqual([
      60, 60, 0, 0,
    ]);
  });

  test("tells the peak of the time ahead", () => {
    const model = learned(record(3, office));
    const end = start + 3 * weekMs;
    expect(peak(model, end, end + 7 * hourMs)).toMatchObject({ value: 10, at: end });
    expect(peak(model, end, end + 8 * hourMs)).toMatchObject({ value: 100, at: end + 8 * hourMs });
    expect(peak(model, end - weekMs, end - weekMs + hourMs)).toMatchObject({ value: 10, at: end });
  });
});

test("whatever was recorded, a forecast is a number that is not below zero and lies in its range", () => {
  const value = fc.oneof(
    fc.constant(0),
    fc.double({ min: 0, max: 1e9, noNaN: true }),
    fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -5),
  );
  fc.assert(
    fc.property(
      fc.array(value, { minLength: 336, maxLength: 500 }),
      fc.nat({ max: 300 }),
      (values, hours) => {
        const model = learn(values.map((one, index) => ({ at: start + index * hourMs, value: one })));
        if (!model) return;
        const prediction = predict(model, model.learnedUntil + hours * hourMs);
        expect(prediction.value).toBeGreaterThanOrEqual(0);
        expect(prediction.low).toBeLessThanOrEqual(prediction.value);
        expect(prediction.high).toBeGreaterThanOrEqual(prediction.value);
        expect(JSON.stringify(model)).not.toContain("null");
      },
    ),
    { numRuns: 30 },
  );
});

test("a weighted median", () => {
  const of = (...values: [number, number][]) =>
    weightedMedian(values.map(([value, weight]) => ({ value, weight })));
  expect(of([3, 1], [1, 1], [2, 1])).toBe(2);
  expect(of([1, 1], [3, 1])).toBe(2);
  expect(of([1, 1], [2, 1], [9, 5])).toBe(9);
  expect(of()).toBeNaN();
});
