/**
 * Local time and instants of an IANA zone. The offsets come from Temporal and are kept a stretch at a time, because a plan
 * of a year asks for tens of thousands of them.
 */
import type { Instant } from "../../core/clock.ts";

/** Milliseconds since 1970-01-01T00:00 on the clocks of a zone. */
export type LocalMs = number;
/** Days since 1970-01-01 in the calendar of a zone. */
export type LocalDay = number;

export const dayMs = 86_400_000;

/** The zone has one offset from `from` until just before `until`. */
interface Stretch {
  from: Instant;
  until: Instant;
  offsetMs: number;
}

export interface Zone {
  readonly name: string;
  readonly stretches: Stretch[];
}

const known = new Map<string, Zone>();

/** Undefined when there is no such zone. A fixed offset such as `+02:00` is none. */
export function findZone(name: string): Zone | undefined {
  const found = known.get(name);
  if (found) return found;
  if (!/^[A-Za-z]/.test(name)) return undefined;
  try {
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name);
  } catch {
    return undefined;
  }
  const zone: Zone = { name, stretches: [] };
  known.set(name, zone);
  return zone;
}

export function localOf(zone: Zone, instant: Instant): LocalMs {
  return instant + stretchAt(zone, instant).offsetMs;
}

/**
 * The instant of a local time. One that daylight saving skips is the first moment after the gap; one that it repeats is the
 * first of the two for a `start` and the last for an `end`.
 */
export function instantOf(zone: Zone, local: LocalMs, edge: "start" | "end"): Instant {
  // No zone is further from UTC than a day, and none changes twice within two.
  const before = stretchAt(zone, local - dayMs);
  const after = stretchAt(zone, local + dayMs);
  if (before.offsetMs === after.offsetMs) return local - before.offsetMs;
  const early = local - before.offsetMs;
  const late = local - after.offsetMs;
  const change = after.from;
  const earlyIsReal = early < change;
  const lateIsReal = late >= change;
  if (earlyIsReal && lateIsReal) return edge === "start" ? early : late;
  if (earlyIsReal) return early;
  return lateIsReal ? late : change;
}

function stretchAt(zone: Zone, instant: Instant): Stretch {
  for (const stretch of zone.stretches) {
    if (instant >= stretch.from && instant < stretch.until) return stretch;
  }
  const at = Temporal.Instant.fromEpochMilliseconds(instant).toZonedDateTimeISO(zone.name);
  // "previous" is strictly before, and a stretch begins with its transition.
  const previous = at.add({ milliseconds: 1 }).getTimeZoneTransition("previous");
  const next = at.getTimeZoneTransition("next");
  const stretch = {
    from: previous?.epochMilliseconds ?? Number.NEGATIVE_INFINITY,
    until: next?.epochMilliseconds ?? Number.POSITIVE_INFINITY,
    offsetMs: at.offsetNanoseconds / 1e6,
  };
  zone.stretches.push(stretch);
  return stretch;
}

/** 02-29 is 03-01 in years without it. */
export function dayOf(year: number, month: number, day: number): LocalDay {
  return Math.round(Date.UTC(year, month - 1, day) / dayMs);
}

export function yearOf(day: LocalDay): number {
  return Temporal.PlainDate.from("1970-01-01").add({ days: day }).year;
}

/** `2026-09-01T08:00` as a zone's clocks show it. */
export function formatLocal(zone: Zone, instant: Instant): string {
  const text = Temporal.Instant.fromEpochMilliseconds(localOf(zone, instant)).toString();
  return text.slice(0, 16);
}
