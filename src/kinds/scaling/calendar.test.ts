import { expect, test } from "vitest";
import type { Instant } from "../../core/clock.ts";
import { calendarAt, nextChange, occurrences } from "./calendar.ts";
import { type Calendar, type CalendarEvent, calendarSchema } from "./calendar-schema.ts";
import { dayMs, findZone, formatLocal } from "./zone.ts";

const berlin = "Europe/Berlin";
const utc = (text: string): Instant => Temporal.Instant.from(`${text}Z`).epochMilliseconds;
const event = (fields: Partial<CalendarEvent>) => ({ name: "e", from: "", until: "", min: 3, ...fields });
const calendarOf = (timeZone: string, ...events: Partial<CalendarEvent>[]): Calendar =>
  calendarSchema.parse({ timeZone, events: events.map(event) });

/** Occurrences in local time, `START END`. */
function listed(calendar: Calendar, from: string, until: string): string[] {
  const zone = findZone(calendar.timeZone);
  if (!zone) throw new Error(calendar.timeZone);
  return occurrences(calendar, utc(from), utc(until)).map(
    ({ start, end }) => `${formatLocal(zone, start)} ${formatLocal(zone, end)}`,
  );
}

test.each<[string, string, Partial<CalendarEvent>, string, string, string[]]>([
  [
    "a month of every year",
    berlin,
    { every: "year", from: "09-01", until: "10-01" },
    "2026-01-01T00:00",
    "2028-01-01T00:00",
    ["2026-09-01T00:00 2026-10-01T00:00", "2027-09-01T00:00 2027-10-01T00:00"],
  ],
  [
    "over the end of the year",
    berlin,
    { every: "year", from: "12-20T18:00", until: "01-07" },
    "2026-01-01T00:00",
    "2027-01-01T00:00",
    ["2025-12-20T18:00 2026-01-07T00:00", "2026-12-20T18:00 2027-01-07T00:00"],
  ],
  [
    "over the end of the week",
    berlin,
    { every: "week", from: "fri 18:00", until: "mon 06:00" },
    "2026-11-01T00:00",
    "2026-11-10T00:00",
    ["2026-10-30T18:00 2026-11-02T06:00", "2026-11-06T18:00 2026-11-09T06:00"],
  ],
  [
    "over the end of the day",
    berlin,
    { every: "day", from: "22:00", until: "06:00" },
    "2026-12-30T23:00",
    "2027-01-01T00:00",
    ["2026-12-30T22:00 2026-12-31T06:00", "2026-12-31T22:00 2027-01-01T06:00"],
  ],
  [
    "a date without a time is its first moment",
    berlin,
    { from: "2026-12-24", until: "2026-12-27T12:00" },
    "2026-01-01T00:00",
    "2030-01-01T00:00",
    ["2026-12-24T00:00 2026-12-27T12:00"],
  ],
  [
    "a start that daylight saving skips is the moment after the gap",
    berlin,
    { every: "day", from: "02:30", until: "05:00" },
    "2026-03-29T00:00",
    "2026-03-29T12:00",
    ["2026-03-29T03:00 2026-03-29T05:00"],
  ],
  [
    "what lies in the gap altogether does not take place",
    berlin,
    { every: "day", from: "02:15", until: "02:45" },
    "2026-03-28T00:00",
    "2026-03-30T12:00",
    ["2026-03-28T02:15 2026-03-28T02:45", "2026-03-30T02:15 2026-03-30T02:45"],
  ],
  [
    "29 February is 1 March in other years",
    "UTC",
    { every: "year", from: "02-29", until: "03-05" },
    "2027-01-01T00:00",
    "2029-01-01T00:00",
    ["2027-03-01T00:00 2027-03-05T00:00", "2028-02-29T00:00 2028-03-05T00:00"],
  ],
  [
    "29 February alone takes place in leap years only",
    "UTC",
    { every: "year", from: "02-29", until: "03-01" },
    "2026-01-01T00:00",
    "2033-01-01T00:00",
    ["2028-02-29T00:00 2028-03-01T00:00", "2032-02-29T00:00 2032-03-01T00:00"],
  ],
  [
    "until 29 February is until the end of the 28th",
    "UTC",
    { every: "year", from: "02-10", until: "02-29" },
    "2027-01-01T00:00",
    "2028-12-01T00:00",
    ["2027-02-10T00:00 2027-03-01T00:00", "2028-02-10T00:00 2028-02-29T00:00"],
  ],
  [
    "an exception is the local date of the start",
    berlin,
    { every: "day", from: "22:00", until: "06:00", except: ["2026-12-24", "2026-12-26"] },
    "2026-12-24T08:00",
    "2026-12-27T08:00",
    ["2026-12-25T22:00 2026-12-26T06:00"],
  ],
  [
    "a zone that skipped a whole day",
    "Pacific/Apia",
    { every: "day", from: "08:00", until: "18:00" },
    "2011-12-29T18:00",
    "2011-12-31T18:00",
    ["2011-12-29T08:00 2011-12-29T18:00", "2011-12-31T08:00 2011-12-31T18:00"],
  ],
])("%s", (_, zone, fields, from, until, expected) => {
  expect(listed(calendarOf(zone, fields), from, until)).toEqual(expected);
});

test("an hour that daylight saving repeats: the first for a start, the last for an end", () => {
  const calendar = calendarOf(berlin, { every: "day", from: "02:30", until: "05:00" });
  const [start] = occurrences(calendar, utc("2026-10-25T00:00"), utc("2026-10-25T12:00"));
  expect(start).toMatchObject({ start: utc("2026-10-25T00:30"), end: utc("2026-10-25T04:00") });
  const ending = calendarOf(berlin, { every: "day", from: "01:00", until: "02:30" });
  const [end] = occurrences(ending, utc("2026-10-25T00:00"), utc("2026-10-25T12:00"));
  expect(end).toMatchObject({ start: utc("2026-10-24T23:00"), end: utc("2026-10-25T01:30") });
});

test("a dated event may name seconds", () => {
  const calendar = calendarOf("UTC", { from: "2026-11-28T08:00:07", until: "2026-11-28T08:00:37" });
  expect(calendarAt(calendar, utc("2026-11-28T08:00:06")).min).toBeUndefined();
  expect(calendarAt(calendar, utc("2026-11-28T08:00:07")).min).toBe(3);
  expect(nextChange(calendar, utc("2026-11-28T08:00:07"))).toBe(utc("2026-11-28T08:00:37"));
});

test("the later event wins, for min and max each", () => {
  const calendar = calendarOf(
    "UTC",
    { name: "term", every: "year", from: "01-01", until: "12-31", min: 2, max: 8 },
    { name: "day", every: "day", from: "08:00", until: "18:00", min: 4 },
    { name: "sale", from: "2026-06-01T10:00", until: "2026-06-01T12:00", max: 6, min: undefined },
  );
  expect(calendarAt(calendar, utc("2026-06-01T11:00"))).toEqual({
    min: 4,
    max: 6,
    events: ["term", "day", "sale"],
  });
  expect(calendarAt(calendar, utc("2026-06-01T12:00"))).toEqual({ min: 4, max: 8, events: ["term", "day"] });
  expect(calendarAt(calendar, utc("2026-12-31T03:00"))).toEqual({ events: [] });
});

test("nextChange jumps to the next start or end", () => {
  const calendar = calendarOf(
    berlin,
    { every: "year", from: "09-01", until: "10-01" },
    { name: "christmas", from: "2026-12-24", until: "2026-12-25" },
  );
  expect(nextChange(calendar, utc("2026-01-01T00:00"))).toBe(utc("2026-08-31T22:00"));
  expect(nextChange(calendar, utc("2026-08-31T22:00"))).toBe(utc("2026-09-30T22:00"));
  expect(nextChange(calendar, utc("2026-09-30T22:00"))).toBe(utc("2026-12-23T23:00"));
  expect(nextChange(calendar, utc("2026-12-24T23:00"))).toBe(utc("2027-08-31T22:00"));
  const once = calendarOf(berlin, { from: "2026-12-24", until: "2026-12-25" });
  expect(nextChange(once, utc("2027-01-01T00:00"))).toBeUndefined();
});

test("nothing changes between now and nextChange", () => {
  const calendar = calendarOf(
    "America/New_York",
    { name: "a", every: "week", from: "sat", until: "mon 03:00", min: 1, except: ["2026-03-07"] },
    { name: "b", every: "day", from: "01:30", until: "02:15", min: 5 },
    { name: "c", every: "year", from: "02-29", until: "03-02T12:00", max: 9 },
  );
  for (let now = utc("2024-02-25T00:00"); now < utc("2024-03-20T00:00"); ) {
    const change = nextChange(calendar, now);
    if (change === undefined) throw new Error("recurring events never end");
    const state = calendarAt(calendar, now);
    for (let at = now; at < change; at += dayMs / 96) expect(calendarAt(calendar, at)).toEqual(state);
    expect(calendarAt(calendar, change - 1)).toEqual(state);
    now = change;
  }
});
