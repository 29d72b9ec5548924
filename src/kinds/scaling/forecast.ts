/**
 * What demand will be, learned from what was recorded: a weekly season with level corrections. Several simple methods forecast
 * the last two weeks from what was known before each moment; they are then combined with weights by how small their errors were
 * (Bates and Granger, "The combination of forecasts", 1969), separately for a near, a middle and a far future. Where "same as
 * last week" alone did better than the combination, it is used instead. Medians and limits keep gaps and outliers from doing harm.
 *
 * Pure; the model is plain JSON.
 */
import type { Instant } from "../../core/clock.ts";
import { fitSeason, type Known, knowAt, type MethodName, methodNames, methods } from "./forecast-methods.ts";
import { type Point, type Series, seriesOf, slotOf, slotsInWeek } from "./forecast-series.ts";
import { dayMs, findZone } from "./zone.ts";

export type { Point } from "./forecast-series.ts";

export interface LearnOptions {
  /** IANA zone whose days and weeks demand follows. Default: UTC. */
  timeZone?: string;
  /** Length of the steps that are forecast; has to divide a day. Default: one hour. Points may be finer, not coarser. */
  stepMs?: number;
}

/** Errors over the last two weeks, each forecast made from what was known before. */
export interface ForecastError {
  /** Mean absolute error over the mean value (weighted MAPE, which small values do not blow up). 0.1 is 10 %. */
  mape: number;
  /** Mean absolute error over that of "same as last week" (MASE with a weekly season). Below 1 is better than it. */
  mase: number;
}

export interface Horizon {
  /** Steps ahead up to which it holds. */
  steps: number;
  /** They sum to 1. */
  weights: Partial<Record<MethodName, number>>;
  error: ForecastError;
  /** Actual less forecast, over `value + floor`: 5 % were lower, 5 % higher. */
  low: number;
  high: number;
}

export interface Model {
  timeZone: string;
  stepMs: number;
  /** End of what it has learned from. */
  learnedUntil: Instant;
  known: Known;
  horizons: Horizon[];
  floor: number;
}

export interface Prediction {
  value: number;
  /** Nine of ten actual values lay between these in the backtest. */
  low: number;
  high: number;
  /** Of forecasts as far ahead as this one, over the last two weeks. */
  error: ForecastError;
}

/** Weeks that are looked at, and of them those forecast as a test. */
const maxWeeks = 9;
const testWeeks = 2;
const hourMs = 3_600_000;
/** The errors of a method count with this power: the best one counts most, and one alike is no loss. */
const sharpness = 4;

/** Undefined with less than two weeks of points: then nothing could be tested. */
export function learn(points: readonly Point[], options: LearnOptions = {}): Model | undefined {
  const timeZone = options.timeZone ?? "UTC";
  const stepMs = options.stepMs ?? hourMs;
  const zone = findZone(timeZone) ?? findZone("UTC");
  if (!zone) return undefined;
  const series = seriesOf(points, zone, stepMs, maxWeeks);
  const size = slotsInWeek(stepMs);
  const count = series.values.length;
  if (count < 2 * size) return undefined;
  const floor = 0.1 * mean(series.values);
  const season = fitSeason(series, count);
  const known = knowAt(series, count, season);
  return {
    timeZone,
    stepMs,
    learnedUntil: series.start + count * stepMs,
    known: {
      ...known,
      last: Array.from(known.last),
      usual: Array.from(known.usual),
      profile: Array.from(known.profile),
    },
    horizons: backtest(series, floor),
    floor,
  };
}

/** For the step that `at` lies in. `at` is later than what was learned; further than a day ahead is as a day ahead. */
export function predict(model: Model, at: Instant): Prediction {
  const zone = findZone(model.timeZone) ?? findZone("UTC");
  const ahead = Math.floor((at - model.learnedUntil) / model.stepMs) + 1;
  const horizon = model.horizons.find(({ steps }) => ahead <= steps) ?? model.horizons.at(-1);
  if (!zone || !horizon) return { value: 0, low: 0, high: 0, error: { mape: 0, mase: 1 } };
  const value = combined(horizon.weights, model.known, slotOf(zone, model.stepMs, at));
  const scale = value + model.floor;
  return {
    value,
    low: Math.max(0, value + horizon.low * scale),
    high: Math.max(value, value + horizon.high * scale),
    error: horizon.error,
  };
}

/**
 * The greatest that is expected in any step from `from` to `until`, both included: what a forecast policy looks at, with
 * `until` its `aheadSeconds` after now. Steps before the end of what was learned are left out; when all are, the next one counts.
 */
export function peak(model: Model, from: Instant, until: Instant): Prediction & { at: Instant } {
  const { stepMs, learnedUntil } = model;
  const begin = Math.max(learnedUntil, Math.floor(from / stepMs) * stepMs);
  let best = { ...predict(model, begin), at: begin };
  for (let at = begin + stepMs; at <= until; at += stepMs) {
    const prediction = predict(model, at);
    if (prediction.value > best.value) best = { ...prediction, at };
  }
  return best;
}

function combined(weights: Horizon["weights"], known: Known, slot: number): number {
  let sum = 0;
  for (const name of methodNames) {
    const weight = weights[name];
    if (weight) sum += weight * Math.max(0, methods[name](known, slot));
  }
  return sum;
}

interface Trial {
  actual: number;
  forecasts: number[];
}

/** Forecasts of the last weeks, from an origin every three hours; the season is fitted once a day. */
function backtest(series: Series, floor: number): Horizon[] {
  const perHour = hourMs / series.stepMs;
  const count = series.values.length;
  const size = slotsInWeek(series.stepMs);
  const from = Math.max(size, count - testWeeks * size);
  const bands = horizonBands(perHour);
  const trials: Trial[][] = bands.map(() => []);
  const perDay = dayMs / series.stepMs;
  let season = fitSeason(series, from);
  for (let origin = from; origin < count; origin += Math.max(1, Math.round(3 * perHour))) {
    if ((origin - from) % perDay === 0) season = fitSeason(series, origin);
    const known = knowAt(series, origin, season);
    bands.forEach(({ probes }, band) => {
      for (const ahead of probes) {
        const actual = series.values[origin + ahead - 1];
        if (actual === undefined || Number.isNaN(actual)) continue;
        const slot = series.slots[origin + ahead - 1] ?? 0;
        const forecasts = methodNames.map((name) => Math.max(0, methods[name](known, slot)));
        trials[band]?.push({ actual, forecasts });
      }
    });
  }
  return bands.map(({ steps }, band) => ({ steps, ...weighed(trials[band] ?? [], floor) }));
}

/** Up to 3 hours, up to 12, and beyond; and the steps ahead that are tried in each. */
function horizonBands(perHour: number) {
  const step = (hours: number) => Math.max(1, Math.round(hours * perHour));
  return [
    { steps: step(3), probes: [1, step(1), step(2), step(3)] },
    { steps: step(12), probes: [step(5), step(8), step(11)] },
    { steps: step(24), probes: [step(14), step(18), step(21), step(24)] },
  ].map(({ steps, probes }) => ({ steps, probes: [...new Set(probes)] }));
}

function weighed(trials: readonly Trial[], floor: number): Omit<Horizon, "steps"> {
  const errors = methodNames.map((_, method) =>
    mean(trials.map(({ actual, forecasts }) => Math.abs(actual - (forecasts[method] ?? 0)))),
  );
  const strengths = errors.map((error) => (error + 1e-9) ** -sharpness);
  const total = strengths.reduce((sum, strength) => sum + strength, 0);
  const mix = strengths.map((strength) => strength / total);
  const lastWeek = methodNames.map((name) => (name === "last-week" ? 1 : 0));
  const errorOf = (weights: readonly number[]) =>
    mean(trials.map((trial) => Math.abs(trial.actual - sumOf(weights, trial))));
  const naive = errorOf(lastWeek);
  const weights = trials.length === 0 || naive <= errorOf(mix) ? lastWeek : mix;
  const error = errorOf(weights);
  const level = mean(trials.map(({ actual }) => actual));
  const rests = trials
    .map((trial) => {
      const value = sumOf(weights, trial);
      return (trial.actual - value) / (value + floor + 1e-9);
    })
    .sort((a, b) => a - b);
  return {
    weights: Object.fromEntries(
      methodNames.flatMap((name, index) => (weights[index] ? [[name, weights[index]]] : [])),
    ),
    error: {
      mape: level > 0 ? error / level : 0,
      mase: naive > 0 ? error / naive : error > 0 ? Number.MAX_VALUE : 1,
    },
    low: rests[Math.floor(rests.length * 0.05)] ?? 0,
    high: rests[Math.ceil(rests.length * 0.95) - 1] ?? 0,
  };
}

function sumOf(weights: readonly number[], { forecasts }: Trial): number {
  return weights.reduce((sum, weight, index) => sum + weight * (forecasts[index] ?? 0), 0);
}

function mean(values: Iterable<number>): number {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    sum += value;
    count++;
  }
  return count === 0 ? 0 : sum / count;
}
