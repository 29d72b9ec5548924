import type { Instant } from "../../core/clock.ts";
import type { Sample, SeriesName } from "../metric-store.ts";
import type { StepRecord } from "../steps.ts";

/** Seconds kept when the disk takes nothing for a long time; the oldest go first. */
const maxTail = 3_600;

/** One series with what is not in its chunks yet: two plain arrays, because there are thousands of these. */
export class Series {
  readonly id: number;
  readonly subject: string;
  readonly uid: string;
  readonly metric: string;
  /** True once its row is on disk. */
  stored: boolean;
  newestAt: Instant;
  newestValue = Number.NaN;
  /** Its chunks have steps after this one that are not to be any more. */
  cutAfter: Instant | undefined;
  #seconds: number[] = [];
  #means: number[] = [];
  /** For seconds with several samples, by their second. */
  #crowded: Map<number, StepRecord> | undefined;

  constructor(id: number, { subject, uid, metric }: SeriesName, stored: boolean, newestAt: Instant) {
    this.id = id;
    this.subject = subject;
    this.uid = uid;
    this.metric = metric;
    this.stored = stored;
    this.newestAt = newestAt;
  }

  /** False when it is older than the newest: then nothing happened. */
  add(at: Instant, value: number): boolean {
    if (at < this.newestAt) return false;
    this.newestAt = at;
    this.newestValue = value;
    const second = Math.floor(at / 1_000);
    if (this.#seconds.at(-1) === second) this.#crowd(second, value);
    else {
      this.#seconds.push(second);
      this.#means.push(value);
      if (this.#seconds.length > maxTail) this.#dropOldest();
    }
    return true;
  }

  /** Forgets the steps after `at`, which came from a clock that was set back: `add` takes what comes from then on. */
  rewind(at: Instant): void {
    const second = Math.floor(at / 1_000);
    const kept = this.#seconds.findLastIndex((one) => one <= second) + 1;
    for (const dropped of this.#seconds.splice(kept)) this.#crowded?.delete(dropped);
    this.#means.splice(kept);
    this.newestAt = Number.NEGATIVE_INFINITY;
    this.cutAfter = Math.min(this.cutAfter ?? at, at);
  }

  /** A sample of the journal. Those up to the newest are in the chunks already; only the newest value is not known. */
  restore(at: Instant, value: number): void {
    if (at > this.newestAt || this.#seconds.length > 0) this.add(at, value);
    else if (at === this.newestAt) this.newestValue = value;
  }

  newest(): Sample {
    const { subject, uid, metric } = this;
    return { subject, uid, metric, at: this.newestAt, value: this.newestValue };
  }

  get tailLength(): number {
    return this.#seconds.length;
  }

  /** In steps of a second, in order. */
  *tail(): Iterable<StepRecord> {
    for (const [index, second] of this.#seconds.entries()) {
      const value = this.#means[index] ?? 0;
      const at = second * 1_000;
      yield this.#crowded?.get(second) ?? { at, count: 1, mean: value, min: value, max: value };
    }
  }

  /** Its tail is in its chunks now. */
  clearTail(): void {
    this.#seconds = [];
    this.#means = [];
    this.#crowded = undefined;
    this.cutAfter = undefined;
  }

  #crowd(second: number, value: number): void {
    const last = this.#means.at(-1) ?? value;
    this.#crowded ??= new Map();
    const record = this.#crowded.get(second) ?? {
      at: second * 1_000,
      count: 1,
      mean: last,
      min: last,
      max: last,
    };
    record.count++;
    record.mean += (value - record.mean) / record.count;
    record.min = Math.min(record.min, value);
    record.max = Math.max(record.max, value);
    this.#crowded.set(second, record);
  }

  #dropOldest(): void {
    const dropped = this.#seconds.splice(0, maxTail / 2);
    this.#means.splice(0, maxTail / 2);
    for (const second of dropped) this.#crowded?.delete(second);
  }
}
