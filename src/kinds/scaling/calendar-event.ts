/** One event of a calendar: its times read, and its occurrences in order. calendar-schema.ts says what the times mean. */
import type { Instant } from "../../core/clock.ts";
import type { CalendarEvent } from "./calendar-schema.ts";
import { dayMs, dayOf, instantOf, type LocalDay, localOf, yearOf, type Zone } from "./zone.ts";

/** Half open: `end` is the first moment after it. */
export interface Occurrence {
  event: string;
  start: Instant;
  end: Instant;
}

/** A time within a year, week or day, or (dated) a day of all days, as it was written. */
interface Moment {
  /** Month 1–12 and day of it; day of the week 1–7; nothing; day since 1970. */
  month: number;
  day: number;
  /** Since midnight, local. */
  timeMs: number;
  /** Greater means later in the same year, week, day or at all. */
  order: number;
}

type Every = CalendarEvent["every"];

const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const time = "([01]\\d|2[0-3]):([0-5]\\d)";
const forms: Record<"year" | "week" | "day" | "once", RegExp> = {
  year: new RegExp(`^(\\d\\d)-(\\d\\d)(?:T${time})?$`),
  week: new RegExp(`^(${weekdays.join("|")})(?: ${time})?$`),
  day: new RegExp(`^${time}$`),
  once: new RegExp(`^(\\d{4})-(\\d\\d)-(\\d\\d)(?:T${time}(?::([0-5]\\d))?)?$`),
};

/** Undefined: not of the form that `every` asks for, or no day of any year. */
export function parseMoment(every: Every, text: string): Moment | undefined {
  const match = forms[every ?? "once"].exec(text);
  if (!match) return undefined;
  const fields = match.slice(1);
  const [hours = 0, minutes = 0, seconds = 0] = fields
    .slice(datePartsOf(every))
    .map((text) => Number(text ?? 0));
  const timeMs = ((hours * 60 + minutes) * 60 + seconds) * 1000;
  const inDay = timeMs / dayMs;
  switch (every) {
    case "day":
      return { month: 0, day: 0, timeMs, order: inDay };
    case "week": {
      const day = weekdays.indexOf(fields[0] ?? "") + 1;
      return { month: 0, day, timeMs, order: day + inDay };
    }
    case "year": {
      const [month, day] = [Number(fields[0]), Number(fields[1])];
      // A leap year has every day that any year has.
      return isDate(2024, month, day)
        ? { month, day, timeMs, order: dayOf(2024, month, day) + inDay }
        : undefined;
    }
    case undefined: {
      const [year, month, day] = [Number(fields[0]), Number(fields[1]), Number(fields[2])];
      if (year < 1970 || !isDate(year, month, day)) return undefined;
      const number = dayOf(year, month, day);
      return { month: 0, day: number, timeMs, order: number + inDay };
    }
  }
}

/** Parts of a text that say the day; what follows is the time. */
function datePartsOf(every: Every): number {
  switch (every) {
    case "day":
      return 0;
    case "week":
      return 1;
    case "year":
      return 2;
    case undefined:
      return 3;
  }
}

function isDate(year: number, month: number, day: number): boolean {
  if (month < 1 || month > 12 || day < 1) return false;
  return day <= Temporal.PlainYearMonth.from({ year, month }).daysInMonth;
}

export interface CompiledEvent {
  name: string;
  min: number | undefined;
  max: number | undefined;
  zone: Zone;
  every: Every;
  from: Moment;
  until: Moment;
  /** It ends in the year, week or day after the one in which it starts. */
  over: boolean;
  except: ReadonlySet<LocalDay>;
}

/** Undefined when its times cannot be read: validation tells that to the user. */
export function compileEvent(event: CalendarEvent, zone: Zone): CompiledEvent | undefined {
  const from = parseMoment(event.every, event.from);
  const until = parseMoment(event.every, event.until);
  if (!from || !until) return undefined;
  return {
    name: event.name,
    min: event.min,
    max: event.max,
    zone,
    every: event.every,
    from,
    until,
    over: event.every !== undefined && until.order <= from.order,
    except: new Set(event.except.map(dayOfDate)),
  };
}

function dayOfDate(date: string): LocalDay {
  const [year = 0, month = 0, day = 0] = date.split("-").map(Number);
  return dayOf(year, month, day);
}

/** More years, weeks or days in a row than this without an occurrence: there are no more. */
const maxSilent = 1000;

/** Those that end after `after`, in the order of their starts; without end for what recurs. */
export function* occurrencesAfter(event: CompiledEvent, after: Instant): Generator<Occurrence> {
  const local = localOf(event.zone, after);
  // One back for what reaches over the end, one more for what a zone's changes move.
  let period = event.every === undefined ? 0 : periodOf(event.every, Math.floor(local / dayMs)) - 2;
  for (let silent = 0; silent < maxSilent; period++, silent++) {
    const occurrence = occurrenceIn(event, period);
    if (occurrence && occurrence.end > after) {
      silent = 0;
      yield occurrence;
    }
    if (event.every === undefined) return;
  }
}

/** The one that starts in the year, week or day of this number; undefined when none does. */
function occurrenceIn(event: CompiledEvent, period: number): Occurrence | undefined {
  const startDay = momentDay(event.every, event.from, period);
  if (event.except.has(startDay)) return undefined;
  const endDay = momentDay(event.every, event.until, event.over ? period + 1 : period);
  const start = instantOf(event.zone, startDay * dayMs + event.from.timeMs, "start");
  const end = instantOf(event.zone, endDay * dayMs + event.until.timeMs, "end");
  return end > start ? { event: event.name, start, end } : undefined;
}

function periodOf(every: "year" | "week" | "day", day: LocalDay): number {
  switch (every) {
    case "year":
      return yearOf(day);
    case "week":
      return Math.floor((day + 3) / 7);
    case "day":
      return day;
  }
}

function momentDay(every: Every, moment: Moment, period: number): LocalDay {
  switch (every) {
    case "year":
      return dayOf(period, moment.month, moment.day);
    case "week":
      // Week 0 began on Monday, 1969-12-29.
      return period * 7 - 3 + moment.day - 1;
    case "day":
      return period;
    case undefined:
      return moment.day;
  }
}
