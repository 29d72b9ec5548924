/** Round local times along an axis. */
import type { Instant } from "../../core/clock.ts";

export interface Tick {
  at: Instant;
  label: string;
  /** The label means the time until the next tick, such as a month, and not a moment. */
  span: boolean;
}

interface Unit {
  step: Temporal.DurationLikeObject;
  /** Fields that are cut off to get to a round time. */
  round(time: Temporal.ZonedDateTime): Temporal.ZonedDateTime;
  label(time: Temporal.ZonedDateTime): string;
}

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (value: number) => String(value).padStart(2, "0");
const clock = (time: Temporal.ZonedDateTime) => `${two(time.hour)}:${two(time.minute)}`;
const day = (time: Temporal.ZonedDateTime) => `${time.day} ${months[time.month - 1]}`;
const month = (time: Temporal.ZonedDateTime) =>
  `${months[time.month - 1]}${time.month === 1 ? ` ${time.year}` : ""}`;
const toMonth = (time: Temporal.ZonedDateTime) => time.with({ day: 1 }).startOfDay();
const toHour = (time: Temporal.ZonedDateTime) => time.round({ smallestUnit: "hour", roundingMode: "floor" });

const units: readonly Unit[] = [
  { step: { seconds: 10 }, round: toHour, label: (time) => `${clock(time)}:${two(time.second)}` },
  { step: { minutes: 1 }, round: toHour, label: clock },
  { step: { minutes: 10 }, round: toHour, label: clock },
  { step: { hours: 1 }, round: (time) => time.startOfDay(), label: clock },
  {
    step: { hours: 6 },
    round: (time) => time.startOfDay(),
    label: (time) => (time.hour === 0 ? day(time) : clock(time)),
  },
  { step: { days: 1 }, round: (time) => time.startOfDay(), label: day },
  {
    step: { days: 7 },
    round: (time) => time.subtract({ days: time.dayOfWeek - 1 }).startOfDay(),
    label: day,
  },
  { step: { months: 1 }, round: toMonth, label: month },
  { step: { months: 3 }, round: (time) => toMonth(time.with({ month: 1 })), label: month },
  {
    step: { years: 1 },
    round: (time) => toMonth(time.with({ month: 1 })),
    label: (time) => String(time.year),
  },
];

/** At most `most` that lie within, in the finest unit that allows it. */
export function ticksBetween(from: Instant, until: Instant, timeZone: string, most: number): Tick[] {
  for (const unit of units) {
    const ticks = ticksOf(unit, from, until, timeZone, most);
    if (ticks) return ticks;
  }
  return [];
}

function ticksOf(
  unit: Unit,
  from: Instant,
  until: Instant,
  timeZone: string,
  most: number,
): Tick[] | undefined {
  const ticks: Tick[] = [];
  const start = unit.round(Temporal.Instant.fromEpochMilliseconds(from).toZonedDateTimeISO(timeZone));
  // Counted from the start: added one to another, 31 January and a month would drift.
  for (let count = 0, skipped = 0; ; count++) {
    const time = start.add(Temporal.Duration.from(scaled(unit.step, count)));
    const at = time.epochMilliseconds;
    if (at > until) return ticks;
    if (at < from) {
      if (++skipped > 400) return undefined;
      continue;
    }
    if (ticks.length === most) return undefined;
    const span = unit.step.months !== undefined || unit.step.years !== undefined;
    ticks.push({ at, label: unit.label(time), span });
  }
}

function scaled(step: Temporal.DurationLikeObject, count: number): Temporal.DurationLikeObject {
  return Object.fromEntries(Object.entries(step).map(([unit, value]) => [unit, value * count]));
}
