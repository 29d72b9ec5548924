/**
 * Samples in a SQLite file of their own. What comes is in memory at once and in the journal within a second; one after
 * the other, each series' tail moves from memory into its chunks, in all three widths of steps, every ten minutes. So the
 * work is the same in every second, a write is small whatever the number of series, and after a crash the journal gives the
 * tails back.
 *
 * Invariants: every sample is in the journal or in the chunks, and a transaction moves it from one to the other; nothing
 * that goes wrong on disk stops whoever records.
 */
import type { Clock, Instant } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import {
  type MetricStore,
  metricLimits,
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
import { chunkStart, decodeChunk, encodeChunk, type Level, levels } from "./chunk.ts";
import { decodeJournal, JournalBatch } from "./journal.ts";
import { isDamage, MetricFile, type Statements } from "./metric-file.ts";
import { Series } from "./series.ts";
import { TailPool } from "./tails.ts";

/** What a crash loses at most. */
const writeEveryMs = 1_000;
/** How often a tail goes to the chunks. */
const chunkEveryMs = 10 * 60_000;
/** Tails that go to the chunks in one write, after a pause. */
const maxTailsPerWrite = 500;
/** Series without samples leave memory after this. */
const idleMs = 3_600_000;
const prunedPerCall = 2_000;
/** Beyond the limit, until `prune` makes room. */
const seriesSlack = 20_000;

export interface SqliteMetricStoreOptions {
  /** Its directory must exist. Made anew when it is damaged. */
  path: string;
  clock: Clock;
  logger: Logger;
}

/** Never fails: without a usable file it keeps the samples in memory, and says so in the log. */
export function openSqliteMetricStore(options: SqliteMetricStoreOptions): MetricStore {
  return new SqliteMetricStore(options);
}

class SqliteMetricStore implements MetricStore {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #file: MetricFile;
  readonly #index = new SeriesIndex<Series>();
  readonly #byId = new Map<number, Series>();
  readonly #tails = new TailPool();
  /** All series in memory, in the order in which their tails go to the chunks. */
  readonly #ring: Series[] = [];
  #ringAt = 0;
  /** What the journal had when the present round began: at its end, all of that is in the chunks. */
  #journalAtRound = 0;
  readonly #listeners = new RecordListeners();
  readonly #batch = new JournalBatch();
  readonly #unstored = new Set<Series>();
  #lastId = 0;
  #count = 0;
  #writtenAt: number;
  #cancelWrite: (() => void) | undefined;
  #failing = false;
  #pruneAfter = 0;
  #closed = false;

  constructor({ path, clock, logger }: SqliteMetricStoreOptions) {
    this.#clock = clock;
    this.#logger = logger;
    this.#file = new MetricFile(path, logger);
    this.#writtenAt = clock.monotonicMs();
    this.#guard("reading the metrics file", () => this.#recover());
  }

  record(samples: readonly Sample[]): void {
    checkSamples(samples);
    const now = this.#clock.now();
    for (const sample of samples) {
      const series = this.#index.get(sample) ?? this.#admit(sample);
      if (series && sample.at < series.newestAt && isAhead(series.newestAt, now)) series.rewind(sample.at);
      if (series?.add(sample.at, sample.value)) this.#batch.add(series.id, sample.at, sample.value);
    }
    if (this.#batch.length > 0 && !this.#closed) {
      this.#cancelWrite ??= this.#clock.after(writeEveryMs, () => this.#write());
    }
    this.#listeners.tell(samples);
  }

  latest(name: SeriesName, notBefore: Instant): Sample | undefined {
    const series = this.#index.get(name);
    return series && this.#isCurrent(series, notBefore) ? series.newest() : undefined;
  }

  *current(notBefore: Instant): Iterable<Sample> {
    for (const series of this.#ring) if (this.#isCurrent(series, notBefore)) yield series.newest();
  }

  #isCurrent(series: Series, notBefore: Instant): boolean {
    return isKnown(series) && series.newestAt >= notBefore && !isAhead(series.newestAt, this.#clock.now());
  }

  range(query: RangeQuery): Point[] {
    checkRange(query);
    const level = levels[levelFor(query.from, this.#clock.now())];
    if (!level) return [];
    const records = this.#storedRecords(query, level);
    for (const part of this.#index.get(query)?.tail() ?? []) {
      if (part.at < query.until) addToSteps(records, level.stepMs, part);
    }
    return toPoints(records, query);
  }

  onRecord(listener: (subjects: ReadonlySet<string>) => void): () => void {
    return this.#listeners.add(listener);
  }

  prune(now: Instant): void {
    this.#guard("tidying the metrics file", () =>
      this.#file.transact((statements) => {
        const excess = this.#count - metricLimits.series;
        if (excess > 0) {
          for (const row of statements.oldestSeries.all(excess)) this.#remove(statements, Number(row.id));
        }
        const rows = statements.someSeries.all(this.#pruneAfter, prunedPerCall);
        for (const row of rows) {
          const id = Number(row.id);
          const newest = Math.max(Number(row.newest), this.#byId.get(id)?.newestAt ?? 0);
          if (newest < now - metricLimits.idleSeriesMs) this.#remove(statements, id);
          else {
            for (const { level, keptMs, spanMs } of levels) {
              statements.cutChunks.run(level, id, now - keptMs - spanMs);
            }
          }
        }
        this.#pruneAfter = rows.length < prunedPerCall ? 0 : Number(rows.at(-1)?.id ?? 0);
      }),
    );
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelWrite?.();
    if (this.#batch.length > 0) this.#write();
    this.#file.close();
  }

  /** Of a name that is not in memory; undefined when there are too many series. */
  #admit(name: SeriesName): Series | undefined {
    let known: { id: number; newest: number } | undefined;
    this.#guard("looking up a series", () => {
      const row = this.#file.statements.findSeries.get(name.subject, name.uid, name.metric);
      if (row) known = { id: Number(row.id), newest: Number(row.newest) };
    });
    if (!known && this.#count >= metricLimits.series + seriesSlack) return undefined;
    if (!known) this.#count++;
    const series = known
      ? new Series(this.#tails, known.id, name, true, known.newest)
      : new Series(this.#tails, ++this.#lastId, name, false, Number.NEGATIVE_INFINITY);
    this.#hold(series);
    return series;
  }

  #hold(series: Series): void {
    this.#index.set(series, series);
    this.#byId.set(series.id, series);
    this.#ring.push(series);
    if (!series.stored) this.#unstored.add(series);
  }

  /** Steps in the chunks, in order. */
  #storedRecords(query: RangeQuery, level: Level): StepRecord[] {
    const records: StepRecord[] = [];
    this.#guard("reading metrics", () => {
      const { findSeries, chunks } = this.#file.statements;
      const id = this.#index.get(query)?.id ?? findSeries.get(query.subject, query.uid, query.metric)?.id;
      if (id === undefined) return;
      const first = chunkStart(level, query.from);
      for (const row of chunks.iterate(level.level, Number(id), first, query.until)) {
        records.push(...decodeChunk(level, Number(row.start), row.data as Uint8Array));
      }
      const { cutAfter = Number.POSITIVE_INFINITY } = this.#index.get(query) ?? {};
      records.splice(records.findLastIndex((record) => record.at <= cutAfter) + 1);
    });
    return records;
  }

  #write(): void {
    this.#cancelWrite = undefined;
    const now = this.#clock.monotonicMs();
    const share = (this.#ring.length * (now - this.#writtenAt)) / chunkEveryMs;
    const moved: Series[] = [];
    const idle: Series[] = [];
    const written = this.#guard("writing metrics", () =>
      this.#file.transact((statements) => {
        for (const { id, subject, uid, metric } of this.#unstored) {
          statements.addSeries.run(id, subject, uid, metric, 0);
        }
        statements.addJournal.run(this.#batch.encode());
        const count = Math.min(maxTailsPerWrite, this.#ring.length, Math.ceil(share));
        for (let i = 0; i < count; i++) this.#moveNext(statements, moved, idle);
      }),
    );
    if (!written) {
      // Tails and batch stay in memory; whoever records next has it tried again.
      this.#cancelWrite ??= this.#closed
        ? undefined
        : this.#clock.after(10 * writeEveryMs, () => this.#write());
      return;
    }
    this.#writtenAt = now;
    for (const series of this.#unstored) series.stored = true;
    this.#unstored.clear();
    this.#batch.clear();
    for (const series of moved) series.clearTail();
    for (const series of idle) this.#release(series);
  }

  /** The next series of the round; at the round's end, what the journal had at its beginning is cut off. */
  #moveNext(statements: Statements, moved: Series[], idle: Series[]): void {
    if (this.#ringAt >= this.#ring.length) {
      this.#ringAt = 0;
      statements.cutJournal.run(this.#journalAtRound);
      this.#journalAtRound = Number(statements.lastJournal.get()?.id ?? 0);
    }
    const series = this.#ring[this.#ringAt++];
    if (!series) return;
    if (series.tailLength > 0) {
      moveTail(statements, series);
      moved.push(series);
    } else if (series.newestAt < this.#clock.now() - idleMs) idle.push(series);
  }

  #release(series: Series): void {
    this.#index.delete(series);
    this.#byId.delete(series.id);
    series.clearTail();
    const at = this.#ring.indexOf(series);
    this.#ring.splice(at, 1);
    if (at < this.#ringAt) this.#ringAt--;
  }

  #remove(statements: Statements, id: number): void {
    for (const { level } of levels) statements.cutChunks.run(level, id, Number.MAX_SAFE_INTEGER);
    statements.removeSeries.run(id);
    this.#count--;
    const held = this.#byId.get(id);
    if (held) this.#release(held);
  }

  #recover(): void {
    const { lastSeries, journal, seriesById, lastJournal } = this.#file.statements;
    /** By series: the last row of the journal that is in its chunks. */
    const movedRows = new Map<number, number>();
    const last = lastSeries.get();
    this.#lastId = Number(last?.id ?? 0);
    this.#count = Number(last?.count ?? 0);
    for (const row of journal.iterate()) {
      for (const { id, at, value } of decodeJournal(row.data as Uint8Array)) {
        let series = this.#byId.get(id);
        if (!series) {
          const named = seriesById.get(id);
          if (!named) continue;
          const { subject, uid, metric, newest } = named as unknown as SeriesName & { newest: number };
          series = new Series(this.#tails, id, { subject, uid, metric }, true, newest);
          this.#hold(series);
          movedRows.set(id, Number(named.moved));
        }
        const inChunks = Number(row.id) <= (movedRows.get(id) ?? 0);
        series.restore(at, Number(value.toPrecision(7)), inChunks);
      }
    }
    this.#journalAtRound = Number(lastJournal.get()?.id ?? 0);
  }

  /** True when it went well. What is damaged is begun anew; the rest is logged once until it goes well again. */
  #guard(action: string, work: () => void): boolean {
    try {
      work();
      this.#failing = false;
      return true;
    } catch (error) {
      if (error instanceof StrataError && error.code === "Internal") throw error;
      if (isDamage(error)) this.#beginAnew(error);
      else if (!this.#failing) {
        this.#failing = true;
        this.#logger.error(
          { error: describeError(error) },
          `${action} failed; samples stay in memory for now, and it is tried again`,
        );
      }
      return false;
    }
  }

  #beginAnew(reason: unknown): void {
    this.#file.beginAnew(reason);
    this.#count = this.#ring.length;
    this.#journalAtRound = 0;
    this.#ringAt = 0;
    for (const series of this.#ring) {
      series.stored = false;
      this.#unstored.add(series);
    }
  }
}

/** False for a series of which only the time of its newest sample is known. */
function isKnown(series: Series): boolean {
  return !Number.isNaN(series.newestValue);
}

function moveTail(statements: Statements, series: Series): void {
  if (series.cutAfter !== undefined) cutAfter(statements, series.id, series.cutAfter);
  for (const level of levels) {
    let start = Number.NaN;
    let records: StepRecord[] = [];
    const put = () => {
      if (records.length === 0) return;
      statements.putChunk.run(level.level, series.id, start, encodeChunk(level, start, records));
    };
    for (const part of series.tail()) {
      const at = chunkStart(level, part.at);
      if (at !== start) {
        put();
        start = at;
        const data = statements.chunk.get(level.level, series.id, start)?.data;
        records = data ? decodeChunk(level, start, data as Uint8Array) : [];
      }
      addToSteps(records, level.stepMs, part);
    }
    put();
  }
  statements.setMoved.run(series.newestAt, series.id);
}

/** Takes the steps after that away. */
function cutAfter(statements: Statements, id: number, at: Instant): void {
  for (const level of levels) {
    const start = chunkStart(level, at);
    statements.cutLaterChunks.run(level.level, id, start);
    const data = statements.chunk.get(level.level, id, start)?.data;
    if (!data) continue;
    const records = decodeChunk(level, start, data as Uint8Array).filter((record) => record.at <= at);
    statements.putChunk.run(level.level, id, start, encodeChunk(level, start, records));
  }
}
