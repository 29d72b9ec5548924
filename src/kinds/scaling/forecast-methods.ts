/**
 * Single methods to forecast a series with a weekly season. Each says what is expected in a slot of the week, from what was
 * known at one moment (its origin); forecast.ts weighs them by how well they did.
 */
import { type Series, slotsInWeek } from "./forecast-series.ts";

/** What was known at an origin. */
export interface Known {
  /** The latest value of each slot. */
  last: ArrayLike<number>;
  /** What is usual in each slot: the weighted median of the weeks, in the unit of the series. */
  usual: ArrayLike<number>;
  /** The same relative to the mean of each week, so that growth does not blur it; 1 on average. */
  profile: ArrayLike<number>;
  /** What `profile` has to be multiplied by, as the last hours, the last day and the last week have it. */
  level: { hours: number; day: number; week: number };
  /** How much the last day, and the last hours, lay above what is usual, on average. */
  above: { hours: number; day: number };
  /** The last day and the last hours over the same time a week before. */
  ratio: { hours: number; day: number };
}

type Method = (known: Known, slot: number) => number;

export const methods = {
  /** Same as last week. */
  "last-week": ({ last }, slot) => at(last, slot),
  usual: ({ usual }, slot) => at(usual, slot),
  "week-level": ({ profile, level }, slot) => at(profile, slot) * level.week,
  "day-level": ({ profile, level }, slot) => at(profile, slot) * level.day,
  "hours-level": ({ profile, level }, slot) => at(profile, slot) * level.hours,
  "day-above": ({ usual, above }, slot) => at(usual, slot) + above.day,
  "hours-above": ({ usual, above }, slot) => at(usual, slot) + above.hours,
  "day-ratio": ({ last, ratio }, slot) => at(last, slot) * ratio.day,
  "hours-ratio": ({ last, ratio }, slot) => at(last, slot) * ratio.hours,
} satisfies Record<string, Method>;
export type MethodName = keyof typeof methods;
export const methodNames = Object.keys(methods) as MethodName[];

function at(values: ArrayLike<number>, slot: number): number {
  return values[slot] ?? Number.NaN;
}

/** Weeks that a median looks at, and what each week counts less than the one after it. */
const medianWeeks = 6;
const weekDecay = 0.8;
/** Values above this many times what was expected do not move a level any further. */
const outlier = 4;
/** A ratio of levels beyond this is an accident, not a change of demand. */
const maxRatio = 5;
const hourMs = 3_600_000;

/** What is usual, from the steps before `origin`. */
export function fitSeason(series: Series, origin: number): Pick<Known, "usual" | "profile"> {
  const size = slotsInWeek(series.stepMs);
  const usual = new Float64Array(size).fill(Number.NaN);
  const profile = new Float64Array(size).fill(Number.NaN);
  const means = weekMeans(series, origin, size);
  const values: Weighted[][] = Array.from({ length: size }, () => []);
  const shares: Weighted[][] = Array.from({ length: size }, () => []);
  for (let index = Math.max(0, origin - medianWeeks * size); index < origin; index++) {
    const value = at(series.values, index);
    if (Number.isNaN(value)) continue;
    const age = Math.floor((origin - 1 - index) / size);
    const slot = series.slots[index] ?? 0;
    const weight = weekDecay ** age;
    values[slot]?.push({ value, weight });
    const mean = means[age] ?? 0;
    if (mean > 0) shares[slot]?.push({ value: value / mean, weight });
  }
  for (let slot = 0; slot < size; slot++) {
    usual[slot] = weightedMedian(values[slot] ?? []);
    profile[slot] = weightedMedian(shares[slot] ?? []);
  }
  return { usual: filled(usual), profile: filled(profile) };
}

function weekMeans(series: Series, origin: number, size: number): number[] {
  return Array.from({ length: medianWeeks }, (_, age) =>
    meanOf(series, origin - (age + 1) * size, origin - age * size),
  );
}

function meanOf(series: Series, from: number, until: number): number {
  let sum = 0;
  let count = 0;
  for (let index = Math.max(0, from); index < until; index++) {
    const value = at(series.values, index);
    if (Number.isNaN(value)) continue;
    sum += value;
    count++;
  }
  return count === 0 ? 0 : sum / count;
}

interface Weighted {
  value: number;
  weight: number;
}

/** The mean of the two middle ones where they weigh the same. NaN of nothing. */
export function weightedMedian(values: Weighted[]): number {
  const sorted = values.sort((a, b) => a.value - b.value);
  const half = sorted.reduce((sum, { weight }) => sum + weight, 0) / 2;
  let passed = 0;
  for (const [index, { value, weight }] of sorted.entries()) {
    passed += weight;
    if (passed > half * (1 + 1e-12)) return value;
    if (passed >= half * (1 - 1e-12)) return (value + (sorted[index + 1]?.value ?? value)) / 2;
  }
  return Number.NaN;
}

/** A slot that was never recorded is as the one before it. */
function filled(values: Float64Array): Float64Array {
  let before = values.findLast((value) => !Number.isNaN(value)) ?? 0;
  return values.map((value) => {
    if (!Number.isNaN(value)) before = value;
    return before;
  });
}

/** All that is known before `origin`, with a season that may have been fitted a little earlier. */
export function knowAt(series: Series, origin: number, season: Pick<Known, "usual" | "profile">): Known {
  const size = slotsInWeek(series.stepMs);
  const last = lastOf(series, origin, size);
  const [hours, day] = [3, 24].map((count) => Math.max(1, Math.round((count * hourMs) / series.stepMs)));
  const week = levelOf(series, season.profile, origin, size, Number.POSITIVE_INFINITY);
  const limit = week * outlier;
  const level = {
    hours: levelOf(series, season.profile, origin, hours ?? 1, limit),
    day: levelOf(series, season.profile, origin, day ?? 1, limit),
    week,
  };
  const above = {
    hours: aboveOf(series, season.usual, origin, hours ?? 1),
    day: aboveOf(series, season.usual, origin, day ?? 1),
  };
  const ratio = {
    hours: ratioOf(series, origin, hours ?? 1, size),
    day: ratioOf(series, origin, day ?? 1, size),
  };
  return { ...season, last, level, above, ratio };
}

function lastOf(series: Series, origin: number, size: number): Float64Array {
  const last = new Float64Array(size).fill(Number.NaN);
  for (let index = Math.max(0, origin - 3 * size); index < origin; index++) {
    const value = at(series.values, index);
    if (!Number.isNaN(value)) last[series.slots[index] ?? 0] = value;
  }
  return filled(last);
}

function levelOf(series: Series, profile: ArrayLike<number>, origin: number, count: number, limit: number) {
  let seen = 0;
  let expected = 0;
  for (let index = Math.max(0, origin - count); index < origin; index++) {
    const value = at(series.values, index);
    if (Number.isNaN(value)) continue;
    const share = at(profile, series.slots[index] ?? 0);
    seen += Number.isFinite(limit) ? Math.min(value, share * limit) : value;
    expected += share;
  }
  return expected > 0 ? seen / expected : Number.isFinite(limit) ? limit / outlier : 0;
}

function aboveOf(series: Series, usual: ArrayLike<number>, origin: number, count: number): number {
  const rest: Weighted[] = [];
  for (let index = Math.max(0, origin - count); index < origin; index++) {
    const value = at(series.values, index);
    if (!Number.isNaN(value)) rest.push({ value: value - at(usual, series.slots[index] ?? 0), weight: 1 });
  }
  return rest.length === 0 ? 0 : weightedMedian(rest);
}

function ratioOf(series: Series, origin: number, count: number, size: number): number {
  let now = 0;
  let before = 0;
  for (let index = Math.max(size, origin - count); index < origin; index++) {
    const [value, old] = [at(series.values, index), at(series.values, index - size)];
    if (Number.isNaN(value) || Number.isNaN(old)) continue;
    now += value;
    before += old;
  }
  return before > 0 ? Math.max(1 / maxRatio, Math.min(maxRatio, now / before)) : 1;
}
