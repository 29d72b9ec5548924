import type { Clock, Instant } from "../../core/clock.ts";
import {
  type MetricStore,
  metricLimits,
  metricRetention,
  type Point,
  type RangeQuery,
  type Sample,
  type SeriesName,
} from "../metric-store.ts";
import { RecordListeners } from "../record-listeners.ts";
import { SeriesIndex } from "../series-index.ts";
import {
  addToSteps,
  checkRange,
  checkSamples,
  isAhead,
  levelFor,
  type StepRecord,
  toPoints,
} from "../steps.ts";

interface Series {
  newest: Sample;
  /** As metricRetention. */
  levels: StepRecord[][];
}

/** For tests and simulations: everything is in memory, and all is gone with it. */
export function createMemoryMetricStore(options: { clock: Pick<Clock, "now"> }): MetricStore {
  return new MemoryMetricStore(options.clock);
}

class MemoryMetricStore implements MetricStore {
  readonly #clock: Pick<Clock, "now">;
  readonly #series = new SeriesIndex<Series>();
  readonly #listeners = new RecordListeners();

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  record(samples: readonly Sample[]): void {
    checkSamples(samples);
    for (const sample of samples) this.#take(sample);
    this.#listeners.tell(samples);
  }

  #take(sample: Sample): void {
    const { at, value } = sample;
    let series = this.#series.get(sample);
    if (series && at < series.newest.at) {
      if (!isAhead(series.newest.at, this.#clock.now())) return;
      for (const records of series.levels) records.splice(records.findLastIndex((one) => one.at <= at) + 1);
    }
    if (!series) {
      series = { newest: sample, levels: metricRetention.map(() => []) };
      this.#series.set(sample, series);
    }
    series.newest = { ...sample };
    for (const [level, { stepMs }] of metricRetention.entries()) {
      addToSteps(series.levels[level] ?? [], stepMs, { at, count: 1, mean: value, min: value, max: value });
    }
  }

  latest(name: SeriesName, notBefore: Instant): Sample | undefined {
    const newest = this.#series.get(name)?.newest;
    return newest && this.#isCurrent(newest.at, notBefore) ? { ...newest } : undefined;
  }

  *current(notBefore: Instant): Iterable<Sample> {
    for (const { newest } of this.#series.values())
      if (this.#isCurrent(newest.at, notBefore)) yield { ...newest };
  }

  #isCurrent(at: Instant, notBefore: Instant): boolean {
    return at >= notBefore && !isAhead(at, this.#clock.now());
  }

  range(query: RangeQuery): Point[] {
    checkRange(query);
    const level = levelFor(query.from, this.#clock.now());
    return toPoints(this.#series.get(query)?.levels[level] ?? [], query);
  }

  onRecord(listener: (subjects: ReadonlySet<string>) => void): () => void {
    return this.#listeners.add(listener);
  }

  prune(now: Instant): void {
    for (const { newest, levels } of [...this.#series.values()]) {
      if (newest.at < now - metricLimits.idleSeriesMs) this.#series.delete(newest);
      for (const [level, { stepMs, keptMs }] of metricRetention.entries()) {
        const records = levels[level] ?? [];
        const kept = records.findIndex((record) => record.at + stepMs > now - keptMs);
        records.splice(0, kept === -1 ? records.length : kept);
      }
    }
    const excess = this.#series.size - metricLimits.series;
    if (excess <= 0) return;
    const byAge = [...this.#series.values()].sort((a, b) => a.newest.at - b.newest.at);
    for (const { newest } of byAge.slice(0, excess)) this.#series.delete(newest);
  }

  close(): void {}
}
