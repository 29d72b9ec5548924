/** A group's calendar for a short year: each occurrence of the real year as a dated event of the next minutes. Pure. */
import { type Instant, toTimestamp } from "../../core/clock.ts";
import type { GroupSpec } from "../../kinds/group.ts";
import { occurrences } from "../../kinds/scaling/calendar.ts";
import { type Calendar, type CalendarEvent, calendarSchema } from "../../kinds/scaling/calendar-schema.ts";
import { lengthOf, type Stretch, toShort } from "./short-year.ts";

/** Instants at which a calendar of the groups starts or ends something. */
export function changesOf(
  specs: readonly Pick<GroupSpec, "policies">[],
  from: Instant,
  until: Instant,
): Instant[] {
  const calendars = specs.flatMap(({ policies }) =>
    policies.flatMap((policy) => (policy.type === "calendar" ? [policy.calendar] : [])),
  );
  const all = calendars.flatMap((calendar) =>
    occurrences(calendar, from, until).flatMap(({ start, end }) => [start, end]),
  );
  return [...new Set(all)].filter((at) => at >= from && at < until).sort((a, b) => a - b);
}

/**
 * The policies with their calendars rehearsed: the short year begins at `startAt`. An occurrence that lasts when the year
 * begins or ends is cut there. A calendar of which nothing happens in the year is left out.
 */
export function rehearse(
  policies: GroupSpec["policies"],
  stretches: readonly Stretch[],
  startAt: Instant,
): GroupSpec["policies"] {
  return policies.flatMap<GroupSpec["policies"][number]>((policy) => {
    if (policy.type !== "calendar") return [policy];
    const calendar = rehearseCalendar(policy.calendar, stretches, startAt);
    return calendar ? [{ ...policy, calendar }] : [];
  });
}

function rehearseCalendar(
  calendar: Calendar,
  stretches: readonly Stretch[],
  startAt: Instant,
): Calendar | undefined {
  const [first, last] = [stretches[0], stretches.at(-1)];
  if (!first || !last) return undefined;
  const events: CalendarEvent[] = [];
  for (const event of calendar.events) {
    const alone = { ...calendar, events: [event] };
    for (const { start, end } of occurrences(alone, first.from, last.until)) {
      const from = seconds(startAt + toShort(stretches, start));
      const until = seconds(startAt + Math.min(lengthOf(stretches), toShort(stretches, end)));
      if (from >= until) continue;
      const { every: _every, except: _except, ...rest } = event;
      events.push({
        ...rest,
        name: `${event.name}-${events.length + 1}`.slice(-63),
        from,
        until,
        except: [],
      });
    }
  }
  return events.length === 0 ? undefined : calendarSchema.parse({ timeZone: "UTC", events });
}

/** As a dated event writes it: never sooner than the instant, or it would fall into the month before. */
function seconds(instant: Instant): string {
  return toTimestamp(Math.ceil(instant / 1000) * 1000).slice(0, 19);
}
