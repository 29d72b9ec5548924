/** Between which numbers a group may be, now: its own, as its calendars change them. */
import type { Instant } from "../../core/clock.ts";
import type { GroupSpec } from "../group.ts";
import { compileCalendar, nextChange, stateOf } from "./calendar.ts";
import { type CompiledEvent, occurrencesAfter } from "./calendar-event.ts";
import type { CalendarPolicy } from "./policy-schema.ts";

/** What of a group says its bounds. */
export type Bounded = Pick<GroupSpec, "min" | "max" | "policies">;

export interface Bounds {
  min: number;
  max: number;
  /** `POLICY/EVENT` of all that last. */
  events: string[];
}

export interface PolicyEvent {
  policy: string;
  event: CompiledEvent;
}

export function calendarPolicies(spec: Bounded): CalendarPolicy[] {
  return spec.policies.filter((policy) => policy.type === "calendar");
}

/** Whose days and weeks the group follows: the zone of its first calendar, UTC without one. */
export function timeZoneOf(spec: Pick<GroupSpec, "policies">): string {
  const first = spec.policies.find((policy) => policy.type === "calendar");
  return first?.calendar.timeZone ?? "UTC";
}

/** Of all calendars, in the order of policies and events: of several that last, the last one wins. */
export function policyEvents(spec: Bounded): PolicyEvent[] {
  return calendarPolicies(spec).flatMap(({ name, calendar }) =>
    compileCalendar(calendar).map((event) => ({ policy: name, event })),
  );
}

export function boundsAt(spec: Bounded, now: Instant): Bounds {
  const lasting = policyEvents(spec).filter(({ event }) => {
    const next = occurrencesAfter(event, now).next();
    return !next.done && next.value.start <= now;
  });
  return boundsOf(spec, lasting);
}

/**
 * A calendar's min replaces the group's own, its max only lowers it. A max holds against any min: where they contradict,
 * which validation refuses as far as it can see, the smaller number counts.
 */
export function boundsOf(spec: Bounded, lasting: readonly PolicyEvent[]): Bounds {
  const state = stateOf(lasting.map(({ event }) => event));
  const max = Math.min(spec.max, state.max ?? spec.max);
  return {
    min: Math.min(max, state.min ?? spec.min),
    max,
    events: lasting.map(({ policy, event }) => `${policy}/${event.name}`),
  };
}

/** Until then the bounds stay as they are; undefined: for ever. */
export function nextBoundsChange(spec: Bounded, now: Instant): Instant | undefined {
  const changes = calendarPolicies(spec).flatMap(({ calendar }) => nextChange(calendar, now) ?? []);
  return changes.length === 0 ? undefined : Math.min(...changes);
}
