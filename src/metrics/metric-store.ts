/**
 * Time series of what instances, balancers, groups and hosts do. Beside the resource store and not in it: samples come
 * by the thousand, may be lost without harm, and nobody watches them one by one.
 *
 * Values are gauges: whoever reports turns counters into rates first, so that readers need not know of restarts.
 */
import type { Instant } from "../core/clock.ts";

/** What is measured of whom. `subject` is the key of a resource (kinds/keys.ts), such as `/instances/default/web`. */
export interface SeriesName {
  subject: string;
  /** Uid of the resource: a new one of the same name begins new series. */
  uid: string;
  metric: MetricName;
}

/**
 * | of         | metrics                                                                                        |
 * |------------|------------------------------------------------------------------------------------------------|
 * | instance   | cpu (% of the CPUs promised), memory (MiB), memory-percent, disk-read, disk-written, received,  |
 * |            | sent (bytes per second)                                                                        |
 * | balancer   | requests, errors (5xx and refused, per second), latency-50, -90, -95, -99 (ms), queue (waiting  |
 * |            | and held), sessions (connections now)                                                          |
 * | server     | the same for one instance of a balancer: the balancer's metric, `@` and the instance's uid      |
 * | group      | custom/NAME as pushed; members, desired                                                        |
 * | host       | cpu (%), memory (MiB used), memory-percent, load, disk-percent                                 |
 * | pool       | used-percent, capacity, used, allocated, promised (MiB)                                        |
 */
export type MetricName = string;

export interface Sample extends SeriesName {
  at: Instant;
  value: number;
}

/** One step of a series: what was measured in [at, at + stepMs). */
export interface Point {
  at: Instant;
  mean: number;
  min: number;
  max: number;
}

export interface RangeQuery extends SeriesName {
  from: Instant;
  /** Exclusive. */
  until: Instant;
  /**
   * At least 1000. Steps begin at `from`; those without a sample are left out. At most `metricLimits.pointsPerQuery` steps.
   * What is kept in wider steps than these counts for the step in which it begins.
   */
  stepMs: number;
}

/** How long samples are kept, by the width of their steps. */
export const metricRetention = [
  { stepMs: 1_000, keptMs: 2 * 3_600_000 },
  { stepMs: 60_000, keptMs: 14 * 86_400_000 },
  { stepMs: 3_600_000, keptMs: 800 * 86_400_000 },
] as const;

export const metricLimits = {
  samplesPerReport: 5_000,
  pointsPerQuery: 20_000,
  series: 200_000,
  /** How far ahead of the store's clock a sample may be and still be current. */
  aheadMs: 60_000,
  /** Of a resource that is gone, or stopped for that long. */
  idleSeriesMs: 90 * 86_400_000,
} as const;

export interface MetricStore {
  /**
   * Takes them over in memory at once and on disk within seconds: a crash loses the last seconds. Samples older than the
   * newest of their series are dropped, unless that lies ahead of the store's clock by more than `metricLimits.aheadMs`: then
   * the clock went back, and whatever the series has of later steps is forgotten in favour of what comes now. Values are kept
   * with seven significant digits.
   * @throws Invalid, and takes none, for a value that is not finite or beyond 3.4e38.
   */
  record(samples: readonly Sample[]): void;
  /** The newest sample, if it is not older than `notBefore` and not ahead by more than `metricLimits.aheadMs`. From memory. */
  latest(name: SeriesName, notBefore: Instant): Sample | undefined;
  /** All newest samples not older than that, and not ahead either: for an exposition. */
  current(notBefore: Instant): Iterable<Sample>;
  /**
   * In the order of time, from the finest steps that reach back far enough.
   * @throws Invalid for a step below a second, an end before the beginning, or too many steps.
   */
  range(query: RangeQuery): Point[];
  /** Called with the subjects of each `record`, after it. Returns how to unsubscribe. */
  onRecord(listener: (subjects: ReadonlySet<string>) => void): () => void;
  /**
   * Forgets what is older than the retention, and series that had no sample for `metricLimits.idleSeriesMs`. Beyond
   * `metricLimits.series`, those go first that had no sample for the longest time. To be called every few minutes.
   */
  prune(now: Instant): void;
  close(): void;
}
