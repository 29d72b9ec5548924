import * as z from "zod";
import { nameSchema } from "../kind.ts";
import { calendarProblems } from "./calendar-rules.ts";

const numbers = z.int().min(0).max(1000);

/**
 * One thing that is known to come. `from` and `until` (exclusive) are local times of the calendar's zone, in the form
 * that `every` asks for:
 *
 * | every  | from, until                         | example               |
 * |--------|-------------------------------------|-----------------------|
 * | year   | MM-DD or MM-DDTHH:MM                | 09-01 … 10-01         |
 * | week   | DAY or DAY HH:MM (mon … sun)        | mon 08:00 … fri 18:00 |
 * | day    | HH:MM                               | 08:00 … 18:00         |
 * | (none) | YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS] | 2026-12-24            |
 *
 * An occurrence whose end comes before its start in the year, week or day reaches over the end of it. A start of
 * 02-29 means 03-01 in years without it. A local time that daylight saving skips means the moment after the gap; one
 * that it repeats means the first of the two for a start and the last for an end, so that nothing is too short.
 */
export const calendarEventSchema = z.strictObject({
  name: nameSchema,
  every: z.enum(["year", "week", "day"]).optional(),
  from: z.string().max(32),
  until: z.string().max(32),
  /** Replace the group's own while it lasts; `max` only lowers it. */
  min: numbers.optional(),
  max: numbers.optional(),
  /** Local dates (YYYY-MM-DD) on which an occurrence that starts then does not take place. */
  except: z.array(z.iso.date()).max(366).default([]),
});

export const calendarSchema = z
  .strictObject({
    /** An IANA zone, such as Europe/Berlin. */
    timeZone: z.string().max(64).default("UTC"),
    /** Of several that last at one moment, the later in this list wins, for min and max each. */
    events: z.array(calendarEventSchema).min(1).max(200),
  })
  .superRefine((calendar, context) => {
    for (const { path, message } of calendarProblems(calendar)) {
      context.addIssue({ code: "custom", path, message });
    }
  });
export type Calendar = z.infer<typeof calendarSchema>;
export type CalendarEvent = z.infer<typeof calendarEventSchema>;
