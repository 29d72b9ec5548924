/** A record as equal steps in a row, each with its place in the week of its zone. */
import type { Instant } from "../../core/clock.ts";
import { dayMs, localOf, type Zone } from "./zone.ts";

export interface Point {
  /** Beginning of the interval of which `value` is the mean. */
  at: Instant;
  value: number;
}

export interface Series {
  start: Instant;
  stepMs: number;
  /** NaN where nothing was recorded. */
  values: Float64Array;
  /** Place in the week, from Monday 00:00 on, by local time. */
  slots: Uint16Array;
}

const weekMs = 7 * dayMs;

export function slotsInWeek(stepMs: number): number {
  return weekMs / stepMs;
}

export function slotOf(zone: Zone, stepMs: number, at: Instant): number {
  // 1970-01-01 was a Thursday.
  const sinceMonday = (((localOf(zone, at) + 3 * dayMs) % weekMs) + weekMs) % weekMs;
  return Math.floor(sinceMonday / stepMs);
}

/** The last `weeks` of the points, as means of steps; the last step counts with what it has. */
export function seriesOf(points: readonly Point[], zone: Zone, stepMs: number, weeks: number): Series {
  const usable = points.filter(({ at, value }) => Number.isFinite(at) && Number.isFinite(value));
  const last = usable.reduce((latest, { at }) => Math.max(latest, at), Number.NEGATIVE_INFINITY);
  const earliest = usable.reduce((first, { at }) => Math.min(first, at), Number.POSITIVE_INFINITY);
  const end = usable.length === 0 ? 0 : Math.floor(last / stepMs) * stepMs + stepMs;
  const start = Math.max(Math.floor(earliest / stepMs) * stepMs, end - weeks * weekMs);
  const count = usable.length === 0 ? 0 : Math.round((end - start) / stepMs);
  const sums = new Float64Array(count);
  const counts = new Uint32Array(count);
  for (const { at, value } of usable) {
    const index = Math.floor((at - start) / stepMs);
    if (index < 0) continue;
    sums[index] = (sums[index] ?? 0) + Math.max(0, value);
    counts[index] = (counts[index] ?? 0) + 1;
  }
  const values = sums.map((sum, index) => sum / (counts[index] ?? 0));
  const slots = new Uint16Array(count);
  for (let index = 0; index < count; index++) slots[index] = slotOf(zone, stepMs, start + index * stepMs);
  return { start, stepMs, values, slots };
}
