/**
 * A year in minutes. Each month becomes a stretch of time: long where a calendar changes something in it or right
 * before it, short where nothing happens. Inside of a month time passes evenly. Pure.
 */
import type { Instant } from "../../core/clock.ts";

export interface Stretch {
  /** The real one: a whole month. */
  from: Instant;
  until: Instant;
  label: string;
  /** In the short year, from its beginning. */
  fromMs: number;
  untilMs: number;
}

export interface ShortYearOptions {
  /** First month, `YYYY-MM`, and how many. */
  first: { year: number; month: number };
  months: number;
  /** In which months begin and end: the calendars'. Default UTC. */
  timeZone?: string;
  /** When calendars change something. */
  changes: readonly Instant[];
  busyMs: number;
  quietMs: number;
}

const monthNames = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** A change this soon after a month's beginning belongs to it; one this soon before its end as well. */
const edgeMs = 3 * 86_400_000;

export function planShortYear(options: ShortYearOptions): Stretch[] {
  const { first, months, timeZone = "UTC", changes, busyMs, quietMs } = options;
  const stretches: Stretch[] = [];
  let at = 0;
  for (let index = 0; index < months; index++) {
    const from = startOfMonth(first.year, first.month + index, timeZone);
    const until = startOfMonth(first.year, first.month + index + 1, timeZone);
    const busy = changes.some((change) => change >= from - edgeMs && change < until + edgeMs);
    const lengthMs = busy ? busyMs : quietMs;
    const label = monthNames[(first.month - 1 + index) % 12] ?? "";
    stretches.push({ from, until, label, fromMs: at, untilMs: at + lengthMs });
    at += lengthMs;
  }
  return stretches;
}

export function lengthOf(stretches: readonly Stretch[]): number {
  return stretches.at(-1)?.untilMs ?? 0;
}

/** Where a real moment lies in the short year; moments outside of it lie at its ends. */
export function toShort(stretches: readonly Stretch[], instant: Instant): number {
  for (const { from, until, fromMs, untilMs } of stretches) {
    if (instant < from) return fromMs;
    if (instant < until) return fromMs + ((instant - from) / (until - from)) * (untilMs - fromMs);
  }
  return lengthOf(stretches);
}

/** Of which month of the real year a moment of the short one is; undefined outside. */
export function stretchAt(stretches: readonly Stretch[], shortMs: number): Stretch | undefined {
  return stretches.find(({ fromMs, untilMs }) => shortMs >= fromMs && shortMs < untilMs);
}

/** `month` counts from 1 and may be above 12. */
function startOfMonth(year: number, month: number, timeZone: string): Instant {
  const months = year * 12 + month - 1;
  const start = Temporal.PlainDate.from({ year: Math.floor(months / 12), month: (months % 12) + 1, day: 1 });
  return start.toZonedDateTime(timeZone).epochMilliseconds;
}
