/** What is wrong with a calendar: times that cannot be read, events that never take place, and contradictions. */
import { didYouMean } from "../../core/spelling.ts";
import { stateOf } from "./calendar.ts";
import { type CompiledEvent, compileEvent, occurrencesAfter, parseMoment } from "./calendar-event.ts";
import type { Calendar, CalendarEvent } from "./calendar-schema.ts";
import { dayMs, dayOf, findZone, formatLocal } from "./zone.ts";

export interface Problem {
  path: PropertyKey[];
  message: string;
}

export function calendarProblems(calendar: Calendar): Problem[] {
  const zone = findZone(calendar.timeZone);
  if (!zone) {
    const guess = didYouMean(calendar.timeZone, Intl.supportedValuesOf("timeZone"));
    const message = `is "${calendar.timeZone}", which is no IANA time zone${guess}; write one such as Europe/Berlin or UTC`;
    return [{ path: ["timeZone"], message }];
  }
  const names = calendar.events.map(({ name }) => name);
  const problems = calendar.events.flatMap((event, index) => {
    const again = names.indexOf(event.name) < index;
    const found: Problem[] = again ? [{ path: ["name"], message: `is "${event.name}" a second time` }] : [];
    if (found.length === 0) found.push(...eventProblems(event));
    if (found.length === 0 && neverHappens(compileEvent(event, zone))) {
      found.push({
        path: ["from"],
        message: "lies with until in an hour that daylight saving skips: it never takes place",
      });
    }
    return found.map(({ path, message }) => ({ path: ["events", index, ...path], message }));
  });
  if (problems.length > 0) return problems;
  const events = calendar.events.flatMap((event) => compileEvent(event, zone) ?? []);
  return clashes(events).map(({ index, message }) => ({ path: ["events", index, "min"], message }));
}

function eventProblems(event: CalendarEvent): Problem[] {
  const problems: Problem[] = [];
  const refuse = (path: keyof CalendarEvent, message: string) => problems.push({ path: [path], message });
  const [from, until] = [parseMoment(event.every, event.from), parseMoment(event.every, event.until)];
  if (!from) refuse("from", `is "${event.from}"; it must be ${momentRule(event.every)}`);
  if (!until) refuse("until", `is "${event.until}"; it must be ${momentRule(event.every)}`);
  const { min, max } = event;
  if (min === undefined && max === undefined) refuse("min", "or max must be given: it would change nothing");
  if (min !== undefined && max !== undefined && min > max) {
    refuse("min", `is ${min}, more than its max (${max})`);
  }
  if (!from || !until) return problems;
  if (event.every === undefined) {
    if (until.order <= from.order) refuse("until", "is not after from: it never takes place");
    else if (event.except.includes(event.from.slice(0, 10))) {
      refuse("except", "takes its only day away: it never takes place");
    }
  } else if (until.order === from.order) {
    refuse(
      "until",
      "is the same as from: it never lasts (for all the time, set the group's own min and max)",
    );
  }
  return problems;
}

/** What `from` and `until` may look like. */
function momentRule(every: CalendarEvent["every"]): string {
  switch (every) {
    case "year":
      return "a day that some year has, MM-DD or MM-DDTHH:MM, such as 09-01";
    case "week":
      return "a day of the week, DAY or DAY HH:MM, such as mon 08:00";
    case "day":
      return "a time of day, HH:MM, such as 08:00";
    case undefined:
      return "a date, YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS], such as 2026-12-24 (or give every: year, week or day)";
  }
}

function neverHappens(event: CompiledEvent | undefined): boolean {
  return event !== undefined && event.every === undefined && occurrencesAfter(event, 0).next().done === true;
}

export interface Clash {
  /** Of the event whose min is too great, in the list. */
  index: number;
  message: string;
}

/**
 * Recurring events are looked at from here on. All 14 kinds of years come within 28, and week and day repeat within one but
 * for daylight saving.
 */
const searchFrom = dayOf(2024, 1, 1) * dayMs;
const yearMs = 366 * dayMs;
const searchMs = { once: 0, year: 28 * yearMs, week: yearMs, day: yearMs };
/** Overlaps that are looked at, so that a long list cannot keep a server busy. What is beyond contradicts at run time. */
const maxOverlaps = 20_000;

/**
 * Moments at which the min that counts is greater than the max that counts, one for each pair of events. `apart` limits the
 * search to pairs that are not of one calendar.
 */
export function clashes(
  events: readonly CompiledEvent[],
  apart: (a: CompiledEvent, b: CompiledEvent) => boolean = () => true,
): Clash[] {
  const found: Clash[] = [];
  let left = maxOverlaps;
  events.forEach((low, index) => {
    for (const high of events) {
      if (low === high || (low.min ?? 0) <= (high.max ?? Number.POSITIVE_INFINITY) || !apart(low, high))
        continue;
      const search = findClash(events, low, high, left);
      left -= search.looked;
      if (search.at === undefined) continue;
      const when = formatLocal(low.zone, search.at);
      const message = `is ${low.min}, more than the max of event "${high.name}" (${high.max}) while both last, such as ${when}`;
      found.push({ index, message });
    }
  });
  return found;
}

function findClash(events: readonly CompiledEvent[], low: CompiledEvent, high: CompiledEvent, limit: number) {
  const [rare, frequent] = rarity(low) <= rarity(high) ? [low, high] : [high, low];
  const start = rare.every === undefined ? 0 : searchFrom;
  const end = start + searchMs[rare.every ?? "once"];
  let looked = 0;
  for (const one of occurrencesAfter(rare, start)) {
    if (rare.every !== undefined && one.start > end) break;
    for (const other of occurrencesAfter(frequent, one.start)) {
      if (++looked > limit) return { looked };
      if (other.start >= one.end) break;
      const both = { start: Math.max(one.start, other.start), end: Math.min(one.end, other.end) };
      const at = contradictionWithin(events, both.start, both.end);
      if (at !== undefined) return { looked, at };
    }
  }
  return { looked };
}

function rarity(event: CompiledEvent): number {
  return ["year", "week", "day"].indexOf(event.every ?? "") + 1;
}

/** A later event may hide a contradiction for a part of the time. */
function contradictionWithin(
  events: readonly CompiledEvent[],
  start: number,
  end: number,
): number | undefined {
  for (let at = start, steps = 0; at < end && steps < 50; steps++) {
    const nexts = events.flatMap((event) => {
      const next = occurrencesAfter(event, at).next();
      return next.done ? [] : [{ event, next: next.value }];
    });
    const state = stateOf(nexts.filter(({ next }) => next.start <= at).map(({ event }) => event));
    if ((state.min ?? 0) > (state.max ?? Number.POSITIVE_INFINITY)) return at;
    at = Math.min(...nexts.map(({ next }) => (next.start > at ? next.start : next.end)));
  }
  return undefined;
}
