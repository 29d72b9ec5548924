/** Measures the forecast on the recorded series in docs/forecast, for its test and for the table in docs/forecast.md. */
import { readFile } from "node:fs/promises";
import { ownFile } from "../../core/own-files.ts";
import { learn, type Point, predict } from "./forecast.ts";
import { findZone, instantOf, localOf } from "./zone.ts";

const hourMs = 3_600_000;
const weekMs = 168 * hourMs;
const timeZone = "Europe/Berlin";
export const seriesNames = ["enrollment", "shop", "batch"] as const;

/** A line a day (UTC) with its 24 hours; empty fields are gaps. */
export async function readSeries(name: string): Promise<Point[]> {
  const text = await readFile(ownFile(`docs/forecast/${name}.csv`), "utf8");
  return text
    .trim()
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [date, ...cells] = line.split(",");
      const start = Temporal.Instant.from(`${date}T00:00:00Z`).epochMilliseconds;
      return cells.flatMap((cell, hour) =>
        cell === "" ? [] : [{ at: start + hour * hourMs, value: Number(cell) }],
      );
    });
}

export interface Score {
  series: string;
  /** `1 h ahead`, `1 to 24 h ahead`. */
  horizon: string;
  /** Sum of absolute errors over the sum of the values. */
  forecast: number;
  lastWeek: number;
  /** forecast ÷ lastWeek: below 1 the forecast is better. */
  ratio: number;
  /** Share of the actual values between low and high; 0.9 is meant. */
  covered: number;
}

/**
 * Walks through the last 8 weeks: every 7 hours (so that each hour of the day has its turn) a model learns from all that was
 * recorded before, and forecasts the next 24 hours. "Last week" is the same local time a week before.
 */
export async function walkForward(series: string): Promise<Score[]> {
  const points = await readSeries(series);
  const actual = new Map(points.map(({ at, value }) => [at, value]));
  const end = (points.at(-1)?.at ?? 0) + hourMs;
  const sums = [
    { horizon: "1 h ahead", steps: 1, ...nothing },
    { horizon: "1 to 24 h ahead", steps: 24, ...nothing },
  ];
  for (let origin = end - 8 * weekMs; origin < end; origin += 7 * hourMs) {
    const model = learn(
      points.filter(({ at }) => at < origin),
      { timeZone },
    );
    if (!model) throw new Error(`${series} is too short`);
    for (const sum of sums) {
      for (let ahead = 0; ahead < sum.steps; ahead++) {
        const at = origin + ahead * hourMs;
        const value = actual.get(at);
        const before = actual.get(weekBefore(at));
        if (value === undefined || before === undefined) continue;
        const { value: expected, low, high } = predict(model, at);
        sum.forecast += Math.abs(value - expected);
        sum.lastWeek += Math.abs(value - before);
        sum.total += value;
        sum.count++;
        sum.covered += value >= low && value <= high ? 1 : 0;
      }
    }
  }
  return sums.map(({ horizon, forecast, lastWeek, total, covered, count }) => ({
    series,
    horizon,
    forecast: forecast / total,
    lastWeek: lastWeek / total,
    ratio: forecast / lastWeek,
    covered: covered / count,
  }));
}

const nothing = { forecast: 0, lastWeek: 0, total: 0, covered: 0, count: 0 };

function weekBefore(at: number): number {
  const zone = findZone(timeZone);
  return zone ? instantOf(zone, localOf(zone, at) - weekMs, "start") : at - weekMs;
}

/** Lines of the table in docs/forecast.md. */
export function scoreTable(scores: readonly Score[]): string[] {
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  return [
    "| series | horizon | error of the forecast | error of last week | ratio | within low … high |",
    "|---|---|---|---|---|---|",
    ...scores.map(
      ({ series, horizon, forecast, lastWeek, ratio, covered }) =>
        `| ${series} | ${horizon} | ${percent(forecast)} | ${percent(lastWeek)} | ${ratio.toFixed(2)} | ${percent(covered)} |`,
    ),
  ];
}
