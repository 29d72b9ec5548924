import fc from "fast-check";
import { expect, test } from "vitest";
import { fromTimestamp, toTimestamp } from "../core/clock.ts";
import { keptBackups, lastDue, nextDue } from "./backup-times.ts";

const at = (text: string) => fromTimestamp(text) ?? Number.NaN;

test.each<["hour" | "day" | "week", string, string, string, string, string]>([
  ["hour", ":15", "UTC", "2026-11-28T10:14:59Z", "2026-11-28T09:15:00.000Z", "2026-11-28T10:15:00.000Z"],
  [
    "hour",
    ":15",
    "Asia/Kolkata",
    "2026-11-28T10:00:00Z",
    "2026-11-28T09:45:00.000Z",
    "2026-11-28T10:45:00.000Z",
  ],
  ["day", "02:30", "UTC", "2026-11-28T02:30:00Z", "2026-11-28T02:30:00.000Z", "2026-11-29T02:30:00.000Z"],
  [
    "day",
    "02:30",
    "Europe/Berlin",
    "2026-11-28T12:00:00Z",
    "2026-11-28T01:30:00.000Z",
    "2026-11-29T01:30:00.000Z",
  ],
  [
    "week",
    "sun 03:00",
    "UTC",
    "2026-11-28T12:00:00Z",
    "2026-11-22T03:00:00.000Z",
    "2026-11-29T03:00:00.000Z",
  ],
  [
    "week",
    "mon 00:00",
    "UTC",
    "2026-11-30T00:00:00Z",
    "2026-11-30T00:00:00.000Z",
    "2026-12-07T00:00:00.000Z",
  ],
  // 02:30 is skipped on 2026-03-29 in Berlin: the moment after the gap.
  [
    "day",
    "02:30",
    "Europe/Berlin",
    "2026-03-29T12:00:00Z",
    "2026-03-29T01:00:00.000Z",
    "2026-03-30T00:30:00.000Z",
  ],
  // And comes twice on 2026-10-25: the first counts, once.
  [
    "day",
    "02:30",
    "Europe/Berlin",
    "2026-10-25T01:00:00Z",
    "2026-10-25T00:30:00.000Z",
    "2026-10-26T01:30:00.000Z",
  ],
])("every %s at %s in %s, seen from %s", (every, time, timeZone, now, last, next) => {
  const times = { every, at: time, timeZone };
  expect(toTimestamp(lastDue(times, at(now)))).toBe(last);
  expect(toTimestamp(nextDue(times, at(now)))).toBe(next);
});

const zones = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"];

test("the last is never in the future, the next never in the past, and nothing is due between", () => {
  const times = fc.oneof(
    fc.record({
      every: fc.constant("hour" as const),
      at: fc.integer({ min: 0, max: 59 }).map((minute) => `:${String(minute).padStart(2, "0")}`),
      timeZone: fc.constantFrom(...zones),
    }),
    fc.record({
      every: fc.constant("day" as const),
      at: fc.integer({ min: 0, max: 23 }).map((hour) => `${String(hour).padStart(2, "0")}:30`),
      timeZone: fc.constantFrom(...zones),
    }),
  );
  const instants = fc.integer({ min: at("2011-01-01T00:00:00Z"), max: at("2030-01-01T00:00:00Z") });
  fc.assert(
    fc.property(times, instants, (schedule, now) => {
      const [last, next] = [lastDue(schedule, now), nextDue(schedule, now)];
      expect(last).toBeLessThanOrEqual(now);
      expect(next).toBeGreaterThan(now);
      expect(lastDue(schedule, next - 1)).toBe(last);
      expect(nextDue(schedule, last)).toBe(next);
    }),
  );
});

const keep = (rules: object) => ({ last: 0, daily: 0, weekly: 0, monthly: 0, ...rules });
const backups = (...times: string[]) => times.map((time) => ({ name: time, takenAt: at(`${time}:00Z`) }));

test("the newest of each day, week and month stays", () => {
  const all = backups(
    "2026-09-30T12:00",
    "2026-10-31T12:00",
    "2026-11-20T12:00",
    "2026-11-22T23:00",
    "2026-11-23T01:00",
    "2026-11-27T02:00",
    "2026-11-27T12:00",
    "2026-11-28T12:00",
  );
  const kept = (rules: object) => [...keptBackups(all, keep(rules), "UTC")].sort();
  expect(kept({ last: 2 })).toEqual(["2026-11-27T12:00", "2026-11-28T12:00"]);
  expect(kept({ daily: 3 })).toEqual(["2026-11-23T01:00", "2026-11-27T12:00", "2026-11-28T12:00"]);
  expect(kept({ weekly: 2 })).toEqual(["2026-11-22T23:00", "2026-11-28T12:00"]);
  expect(kept({ monthly: 2 })).toEqual(["2026-10-31T12:00", "2026-11-28T12:00"]);
  expect(kept({ monthly: 12, last: 1 })).toEqual([
    "2026-09-30T12:00",
    "2026-10-31T12:00",
    "2026-11-28T12:00",
  ]);
});

test("a day is one of the schedule's zone", () => {
  const all = backups("2026-11-27T22:30", "2026-11-27T23:30");
  expect(keptBackups(all, keep({ daily: 2 }), "UTC").size).toBe(1);
  expect(keptBackups(all, keep({ daily: 2 }), "Europe/Berlin").size).toBe(2);
});

test("the newest always stays, and more rules never keep fewer", () => {
  const counts = fc.integer({ min: 0, max: 20 });
  const rules = fc.record({ last: counts, daily: counts, weekly: counts, monthly: counts });
  const some = fc.uniqueArray(fc.integer({ min: 0, max: 400 * 86_400_000 }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(some, rules, rules, (times, one, other) => {
      const all = times.map((takenAt) => ({ name: `b${takenAt}`, takenAt }));
      const kept = keptBackups(all, one, "UTC");
      expect(kept).toContain(`b${Math.max(...times)}`);
      expect(kept.size).toBeGreaterThanOrEqual(Math.min(all.length, one.last));
      const more = keptBackups(
        all,
        {
          last: Math.max(one.last, other.last),
          daily: Math.max(one.daily, other.daily),
          weekly: Math.max(one.weekly, other.weekly),
          monthly: Math.max(one.monthly, other.monthly),
        },
        "UTC",
      );
      for (const name of kept) expect(more).toContain(name);
    }),
  );
});
