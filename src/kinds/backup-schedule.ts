import * as z from "zod";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";
import { findZone } from "./scaling/zone.ts";

const some = z.int().min(0).max(1000);

/** Forms of `at`, by `every`. */
const forms = {
  hour: { pattern: /^:([0-5]\d)$/, form: "`:MM`, such as :15" },
  day: { pattern: /^([01]\d|2[0-3]):([0-5]\d)$/, form: "`HH:MM`, such as 02:30" },
  week: {
    pattern: /^(mon|tue|wed|thu|fri|sat|sun) ([01]\d|2[0-3]):([0-5]\d)$/,
    form: "`DAY HH:MM`, such as `sun 03:00`",
  },
} as const;

/** How many backups stay; one that any of these keeps, stays. */
const keepSchema = z
  .strictObject({
    /** The newest. */
    last: some.default(0),
    /** The newest of each of so many days, weeks (from Monday) and months that have one, in the schedule's time zone. */
    daily: some.default(0),
    weekly: some.default(0),
    monthly: some.default(0),
  })
  .refine((keep) => Object.values(keep).some((count) => count > 0), {
    error: "must keep something: last, daily, weekly or monthly",
  });
export type Keep = z.infer<typeof keepSchema>;

export const backupScheduleSpecSchema = z
  .strictObject({
    /** What it makes backups of: either a volume or an instance. */
    volume: nameSchema.optional(),
    instance: nameSchema.optional(),
    repository: nameSchema,
    every: z.enum(["hour", "day", "week"]).default("day"),
    /** Local time: `:MM` of each hour, `HH:MM` of each day, or `DAY HH:MM` (mon … sun) of each week. */
    at: z.string().max(16),
    /** An IANA zone, such as Europe/Berlin. */
    timeZone: z
      .string()
      .max(64)
      .refine((name) => findZone(name) !== undefined, {
        error: "must be an IANA time zone, such as Europe/Berlin",
      })
      .default("UTC"),
    keep: keepSchema,
    /** After so many days, the newest backup is restored for a test and the repository read as a whole; 0: never. */
    verifyEveryDays: z.int().min(0).max(366).default(7),
    /** Of an instance: then it is also restored and started, in a network without a way out, and removed again. */
    verifyBoot: z.boolean().default(false),
    /** As in a backup's spec. */
    bootCommand: z.array(z.string().max(4096)).min(1).max(256).optional(),
    /** True: no new backups, and none is removed. */
    suspended: z.boolean().default(false),
  })
  .superRefine(({ every, at, volume, instance, verifyBoot }, context) => {
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    const { pattern, form } = forms[every];
    if (!pattern.test(at)) refuse("at", `must be ${form}, for every ${every}`);
    if ((volume === undefined) === (instance === undefined)) {
      refuse("volume", "must be given, or spec.instance: one of the two");
    }
    if (verifyBoot && instance === undefined) refuse("verifyBoot", "is for schedules of instances");
  });

export const backupScheduleKind = defineKind({
  name: "BackupSchedule",
  plural: "backup-schedules",
  scope: "project",
  summary:
    "When backups of a volume or an instance are made, how long they stay, and how often they are tested.",
  spec: backupScheduleSpecSchema,
  status: z.strictObject({
    state: z.enum(["active", "suspended", "failed"]),
    message: z.string().max(1024),
    /** The moment that the last backup was due, and that the next is. */
    lastDueAt: z.string().optional(),
    nextDueAt: z.string().optional(),
    /** When a test was last asked for. */
    lastVerifyAt: z.string().optional(),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({ state: "active" as const, message: "", observedGeneration: 0 }),
  validateUpdate: (next, previous) => immutable(next, previous, ["volume", "instance"]),
});
export type BackupSchedule = ResourceOf<typeof backupScheduleKind>;
export type BackupScheduleSpec = BackupSchedule["spec"];

const dayNames = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/** `at` as numbers; `weekday` 0 is Monday. */
export function timeOf({ every, at }: Pick<BackupScheduleSpec, "every" | "at">): {
  weekday: number;
  hour: number;
  minute: number;
} {
  const [day = "", time = at] = every === "week" ? at.split(" ") : ["", at];
  const [hour = "", minute = ""] = time.split(":");
  return { weekday: Math.max(0, dayNames.indexOf(day)), hour: Number(hour), minute: Number(minute) };
}
