import type { Instant } from "../../core/clock.ts";
import type { Sample, SeriesName } from "../metric-store.ts";
import type { StepRecord } from "../steps.ts";
import { emptyTail, type TailPool } from "./tails.ts";

/** Seconds kept when the disk takes nothing for a long time; the oldest go first. */
const maxTail = 3_600;

/** One series with what is not in its chunks yet, in the pool of all series. */
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
  readonly #pool: TailPool;
  /** By second, the mean of its samples. */
  readonly #tail = emptyTail();
  /** For seconds with several samples, by their second. */
  #crowded: Map<number, StepRecord> | undefined;

  constructor(
    pool: TailPool,
    id: number,
    { subject, uid, metric }: SeriesName,
    stored: boolean,
    newestAt: Instant,
  ) {
    this.#pool = pool;
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
    const [lastSecond, lastMean = value] = this.#pool.newest(this.#tail) ?? [];
    if (lastSecond === second) this.#crowd(second, lastMean, value);
    else {
      this.#pool.append(this.#tail, second, value);
      if (this.#tail.length > maxTail) this.#keep((_, index) => index >= maxTail / 2);
    }
    return true;
  }

  /** Forgets the steps after `at`, which came from a clock that was set back: `add` takes what comes from then on. */
  rewind(at: Instant): void {
    const second = Math.floor(at / 1_000);
    const newest = this.#pool.newest(this.#tail);
    if (newest && newest[0] > second) this.#keep((one) => one <= second);
    this.newestAt = Number.NEGATIVE_INFINITY;
    this.cutAfter = Math.min(this.cutAfter ?? at, at);
  }

  /** A sample of the journal, in their order. Of those that are in the chunks already, only the newest value is not known. */
  restore(at: Instant, value: number, inChunks: boolean): void {
    if (inChunks) {
      if (at === this.newestAt) this.newestValue = value;
      return;
    }
    // It was taken only because the clock had gone back.
    if (at < this.newestAt) this.rewind(at);
    this.add(at, value);
  }

  newest(): Sample {
    const { subject, uid, metric } = this;
    return { subject, uid, metric, at: this.newestAt, value: this.newestValue };
  }

  get tailLength(): number {
    return this.#tail.length;
  }

  /** In steps of a second, in order. */
  *tail(): Iterable<StepRecord> {
    for (const [second, value] of this.#pool.samples(this.#tail)) {
      const at = second * 1_000;
      yield this.#crowded?.get(second) ?? { at, count: 1, mean: value, min: value, max: value };
    }
  }

  /** Its tail is in its chunks now. */
  clearTail(): void {
    this.#pool.clear(this.#tail);
    this.#crowded = undefined;
    this.cutAfter = undefined;
  }

  #crowd(second: number, last: number, value: number): void {
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

  /** Forgets the others. */
  #keep(wanted: (second: number, index: number) => boolean): void {
    const samples = [...this.#pool.samples(this.#tail)];
    this.#pool.clear(this.#tail);
    for (const [index, [second, mean]] of samples.entries()) {
      if (wanted(second, index)) this.#pool.append(this.#tail, second, mean);
      else this.#crowded?.delete(second);
    }
  }
}
