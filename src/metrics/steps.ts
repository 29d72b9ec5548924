import type { Instant } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { metricLimits, metricRetention, type Point, type RangeQuery, type Sample } from "./metric-store.ts";

/** What was measured within one step; of several steps, the mean is weighted by their counts. */
export interface StepRecord {
  /** Where the step begins: a multiple of its width. */
  at: Instant;
  count: number;
  mean: number;
  min: number;
  max: number;
}

/** Significant digits of what a store gives back: values are kept as 32-bit floats. */
const digits = 7;

/** @throws Invalid unless all values can be kept. */
export function checkSamples(samples: readonly Sample[]): void {
  for (const { subject, metric, value } of samples) {
    if (Number.isFinite(Math.fround(value))) continue;
    throw new StrataError(
      "Invalid",
      `cannot record ${metric} of ${subject}: ${value} is not a finite number`,
      {
        fields: [{ path: "value", message: `is ${value}`, allowed: "a finite number below 3.4e38" }],
      },
    );
  }
}

/** @throws Invalid */
export function checkRange({ from, until, stepMs, metric }: RangeQuery): void {
  const wrong = (path: string, message: string, allowed: string) =>
    new StrataError("Invalid", `cannot read ${metric}: ${path} ${message}`, {
      fields: [{ path, message, allowed }],
    });
  if (!(stepMs >= 1_000)) throw wrong("step", `is ${stepMs} ms`, "at least 1 s");
  if (!(until >= from)) throw wrong("until", "is before from", "a time after from");
  const steps = Math.ceil((until - from) / stepMs);
  if (steps > metricLimits.pointsPerQuery) {
    const least = Math.ceil((until - from) / metricLimits.pointsPerQuery / 1_000);
    throw wrong(
      "step",
      `gives ${steps} steps, more than ${metricLimits.pointsPerQuery}`,
      `at least ${least} s`,
    );
  }
}

/** Index in `metricRetention` of the finest steps that reach back to `from`; the widest when none does. */
export function levelFor(from: Instant, now: Instant): number {
  const level = metricRetention.findIndex(({ keptMs }) => from >= now - keptMs);
  return level === -1 ? metricRetention.length - 1 : level;
}

/** True when the newest sample of a series has its time from a clock that has been set back since. */
export function isAhead(newestAt: Instant, now: Instant): boolean {
  return newestAt > now + metricLimits.aheadMs;
}

/** Adds to records that are in order and have no later step than this one. */
export function addToSteps(records: StepRecord[], stepMs: number, part: StepRecord): void {
  const at = Math.floor(part.at / stepMs) * stepMs;
  const last = records.at(-1);
  if (last?.at === at) mergeInto(last, part);
  else records.push({ ...part, at });
}

function mergeInto(into: StepRecord, part: StepRecord): void {
  const count = into.count + part.count;
  into.mean += ((part.mean - into.mean) * part.count) / count;
  into.min = Math.min(into.min, part.min);
  into.max = Math.max(into.max, part.max);
  into.count = count;
}

/** Records, in order, in the steps of a query. */
export function toPoints(records: Iterable<StepRecord>, { from, until, stepMs }: RangeQuery): Point[] {
  const steps: StepRecord[] = [];
  for (const record of records) {
    if (record.at < from || record.at >= until) continue;
    const at = from + Math.floor((record.at - from) / stepMs) * stepMs;
    const last = steps.at(-1);
    if (last?.at === at) mergeInto(last, record);
    else steps.push({ ...record, at });
  }
  return steps.map(({ at, mean, min, max }) => ({ at, mean: short(mean), min: short(min), max: short(max) }));
}

function short(value: number): number {
  return Number(value.toPrecision(digits));
}
