/** When a schedule's backups are due, and which of them stay. Pure. */
import type { Instant } from "../core/clock.ts";
import { type BackupScheduleSpec, type Keep, timeOf } from "./backup-schedule.ts";
import { dayMs, findZone, instantOf, type LocalMs, localOf, type Zone } from "./scaling/zone.ts";

const hourMs = 3_600_000;
const minuteMs = 60_000;
/** 1970-01-05 was a Monday. */
const firstMonday = 4 * dayMs;

type Times = Pick<BackupScheduleSpec, "every" | "at" | "timeZone">;

/**
 * The last moment up to `now` at which a backup was due. A local time that daylight saving skips means the moment after the
 * gap; one that it repeats means the first of the two.
 */
export function lastDue(times: Times, now: Instant): Instant {
  const found = dueAround(times, now).findLast((instant) => instant <= now);
  return found ?? now;
}

/** The first moment after `now` at which a backup is due. */
export function nextDue(times: Times, now: Instant): Instant {
  const found = dueAround(times, now).find((instant) => instant > now);
  return found ?? now + 7 * dayMs;
}

/** Those of a period before until a period after, in order. */
function dueAround(times: Times, now: Instant): Instant[] {
  const { every } = times;
  const { weekday, hour, minute } = timeOf(times);
  // An hour's minute is the same in all zones but for those that are off by half an hour, which local time covers.
  const zone = zoneOf(times.timeZone);
  const local = localOf(zone, now);
  const period = { hour: hourMs, day: dayMs, week: 7 * dayMs }[every];
  const offset = every === "week" ? firstMonday : 0;
  const within = every === "hour" ? minute * minuteMs : weekday * dayMs + hour * hourMs + minute * minuteMs;
  const start = Math.floor((local - offset) / period) * period + offset;
  // A zone may change by up to a day, and hours around that repeat or are skipped.
  const steps = every === "hour" ? 30 : 2;
  const instants = new Set<Instant>();
  for (let step = -steps; step <= steps; step++) {
    instants.add(instantOf(zone, start + step * period + within, "start"));
  }
  return [...instants].sort((a, b) => a - b);
}

export interface Kept {
  name: string;
  takenAt: Instant;
}

/**
 * Names of those that `keep` keeps, of backups that can be restored. The newest always stays. Each is complete in itself, so
 * removing the others takes nothing from these.
 */
export function keptBackups(backups: readonly Kept[], keep: Keep, timeZone: string): Set<string> {
  const newestFirst = [...backups].sort((a, b) => b.takenAt - a.takenAt || (a.name < b.name ? 1 : -1));
  const kept = new Set(newestFirst.slice(0, Math.max(1, keep.last)).map(({ name }) => name));
  const zone = zoneOf(timeZone);
  const rules: [count: number, periodOf: (local: LocalMs) => string][] = [
    [keep.daily, (local) => `${Math.floor(local / dayMs)}`],
    [keep.weekly, (local) => `${Math.floor((local - firstMonday) / (7 * dayMs))}`],
    [keep.monthly, (local) => Temporal.Instant.fromEpochMilliseconds(local).toString().slice(0, 7)],
  ];
  for (const [count, periodOf] of rules) {
    const periods = new Set<string>();
    for (const { name, takenAt } of newestFirst) {
      if (periods.size >= count) break;
      const period = periodOf(localOf(zone, takenAt));
      if (periods.has(period)) continue;
      periods.add(period);
      kept.add(name);
    }
  }
  return kept;
}

function zoneOf(name: string): Zone {
  const zone = findZone(name) ?? findZone("UTC");
  if (!zone) throw new RangeError("there is no UTC");
  return zone;
}
