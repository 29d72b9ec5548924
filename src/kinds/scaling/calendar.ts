/** What a demand calendar says: now, when it next says something else, and over a stretch of time. Pure. */
import type { Instant } from "../../core/clock.ts";
import { type CompiledEvent, compileEvent, type Occurrence, occurrencesAfter } from "./calendar-event.ts";
import type { Calendar } from "./calendar-schema.ts";
import { findZone } from "./zone.ts";

export type { Occurrence } from "./calendar-event.ts";

export interface CalendarState {
  /** Undefined: no event that lasts now says anything about it. */
  min?: number;
  max?: number;
  /** Names of the events that last now, in the order of the calendar. */
  events: string[];
}

const compiled = new WeakMap<Calendar, readonly CompiledEvent[]>();

/** The events in their order. Those of an invalid calendar that cannot be read are left out. */
export function compileCalendar(calendar: Calendar): readonly CompiledEvent[] {
  const known = compiled.get(calendar);
  if (known) return known;
  const zone = findZone(calendar.timeZone);
  const events = zone ? calendar.events.flatMap((event) => compileEvent(event, zone) ?? []) : [];
  compiled.set(calendar, events);
  return events;
}

/** The later event in the list wins, for min and max each. */
export function calendarAt(calendar: Calendar, now: Instant): CalendarState {
  return stateOf(compileCalendar(calendar).filter((event) => lasts(event, now)));
}

/** What events that last at one moment say together. */
export function stateOf(lasting: readonly CompiledEvent[]): CalendarState {
  const min = lasting.findLast((event) => event.min !== undefined)?.min;
  const max = lasting.findLast((event) => event.max !== undefined)?.max;
  return {
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
    events: lasting.map((event) => event.name),
  };
}

function lasts(event: CompiledEvent, now: Instant): boolean {
  const next = occurrencesAfter(event, now).next();
  return !next.done && next.value.start <= now;
}

/**
 * The first moment after `now` at which an event starts or ends: until then calendarAt stays as it is. Undefined when
 * nothing comes any more.
 */
export function nextChange(calendar: Calendar, now: Instant): Instant | undefined {
  const changes = compileCalendar(calendar).flatMap((event) => {
    const next = occurrencesAfter(event, now).next();
    if (next.done) return [];
    const { start, end } = next.value;
    return [start > now ? start : end];
  });
  return changes.length === 0 ? undefined : Math.min(...changes);
}

/** All that last at some moment from `from` until just before `until`, by start, then in the order of the calendar. */
export function occurrences(calendar: Calendar, from: Instant, until: Instant): Occurrence[] {
  const found: Occurrence[] = [];
  for (const event of compileCalendar(calendar)) {
    for (const occurrence of occurrencesAfter(event, from)) {
      if (occurrence.start >= until) break;
      found.push(occurrence);
    }
  }
  return found.sort((a, b) => a.start - b.start);
}
