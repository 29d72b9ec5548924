import * as z from "zod";
import { nameSchema } from "../kind.ts";
import { calendarSchema } from "./calendar-schema.ts";

/**
 * What a policy can look at, always of a whole group:
 *
 * | metric      | value                                                            | unit of `target`            |
 * |-------------|------------------------------------------------------------------|-----------------------------|
 * | cpu         | use of the CPUs promised to the serving members, average          | per cent                    |
 * | memory      | use of the memory promised to the serving members, average        | per cent                    |
 * | requests    | requests that came to its load balancers                          | per second and instance     |
 * | latency     | a percentile of the time to answer a request                      | milliseconds                |
 * | queue       | requests that wait at its load balancers for a free instance      | per instance                |
 * | custom/NAME | pushed to the API for the group                                   | of its own, per instance    |
 */
export const plainMetrics = ["cpu", "memory", "requests", "latency", "queue"] as const;
export type PlainMetric = (typeof plainMetrics)[number];
export type Metric = PlainMetric | `custom/${string}`;

const customMetric = /^custom\/[a-z][a-z0-9-]{0,62}$/;

export function isMetric(text: string): text is Metric {
  return (plainMetrics as readonly string[]).includes(text) || customMetric.test(text);
}

export const metricSchema = z.string().refine(isMetric, {
  error: `must be one of ${plainMetrics.join(", ")} or custom/NAME`,
}) as unknown as z.ZodType<Metric, string>;

const percentile = z.union([z.literal(50), z.literal(90), z.literal(95), z.literal(99)]).default(95);
const positive = z.number().positive().max(1e12);

/** As many members as bring the metric to the target. */
const targetPolicy = z
  .strictObject({
    type: z.literal("target"),
    name: nameSchema,
    metric: metricSchema,
    target: positive,
    /** Of `latency`. */
    percentile,
    /** No change while the metric is within this share of the target, so that it does not swing around it. */
    tolerance: z.number().min(0).max(0.5).default(0.1),
  })
  .superRefine(({ metric, target }, context) => {
    if (!isPerCent(metric) || target <= 100) return;
    context.addIssue({ code: "custom", path: ["target"], message: neverAbove(metric, target) });
  });

const stepSchema = z
  .strictObject({
    /** Applies while the metric is at least `from` and less than `below`. */
    from: z.number().min(0).optional(),
    below: z.number().positive().optional(),
    /** Members more (or less) than now. */
    change: z.int().min(-1000).max(1000),
  })
  .superRefine(({ from, below }, context) => {
    const refuse = (message: string) => context.addIssue({ code: "custom", message });
    if (from === undefined && below === undefined) refuse("needs from, below or both");
    if (from !== undefined && below !== undefined && from >= below) {
      refuse(`applies from ${from} below ${below}, so never; from must be less than below`);
    }
  });

/** So many more or less in given ranges of the metric. Ranges may not overlap. */
const stepPolicy = z
  .strictObject({
    type: z.literal("step"),
    name: nameSchema,
    metric: metricSchema,
    percentile,
    steps: z.array(stepSchema).min(1).max(20),
  })
  .superRefine(({ metric, steps }, context) => {
    const refuse = (path: PropertyKey[], message: string) =>
      context.addIssue({ code: "custom", path: ["steps", ...path], message });
    steps.forEach((step, index) => {
      const { from = 0 } = step;
      if (isPerCent(metric) && from > 100) refuse([index, "from"], neverAbove(metric, from));
      const other = steps.findIndex((earlier) => overlap(earlier, step));
      if (other >= 0 && other < index) refuse([index], `overlaps step ${other}; ranges must not overlap`);
    });
  });

type Range = { from?: number | undefined; below?: number | undefined };

function overlap(a: Range, b: Range): boolean {
  const infinite = Number.POSITIVE_INFINITY;
  return (a.from ?? 0) < (b.below ?? infinite) && (b.from ?? 0) < (a.below ?? infinite);
}

function isPerCent(metric: Metric): boolean {
  return metric === "cpu" || metric === "memory";
}

function neverAbove(metric: Metric, value: number): string {
  return `is ${value}; ${metric} is in per cent and never above 100`;
}

/** What is known beforehand: terms, opening hours, sales. */
const calendarPolicy = z.strictObject({
  type: z.literal("calendar"),
  name: nameSchema,
  calendar: calendarSchema,
});

/** Learns the season of the metric from what was recorded and wants, ahead of time, what it will need. */
const forecastPolicy = z.strictObject({
  type: z.literal("forecast"),
  name: nameSchema,
  metric: z.union([z.literal("requests"), metricSchema.refine((text) => text.startsWith("custom/"))], {
    error: "must be requests or custom/NAME: what grows with demand whatever the number of members",
  }) as unknown as z.ZodType<Metric, string>,
  /** Per instance, as of a target policy. */
  target: positive,
  /** How long before it is needed a member has to be started. */
  aheadSeconds: z.int().min(0).max(86_400).default(300),
});

export const policySchema = z.discriminatedUnion("type", [
  targetPolicy,
  stepPolicy,
  calendarPolicy,
  forecastPolicy,
]);
export type Policy = z.infer<typeof policySchema>;
export type TargetPolicy = z.infer<typeof targetPolicy>;
export type StepPolicy = z.infer<typeof stepPolicy>;
export type CalendarPolicy = z.infer<typeof calendarPolicy>;
export type ForecastPolicy = z.infer<typeof forecastPolicy>;
