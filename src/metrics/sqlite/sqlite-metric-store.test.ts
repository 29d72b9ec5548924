import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { silentLogger } from "../../core/logger.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { metricStoreConformance } from "../conformance.ts";
import type { Sample } from "../metric-store.ts";
import { openSqliteMetricStore } from "./sqlite-metric-store.ts";

metricStoreConformance(
  "the SQLite metric store",
  () => {
    const directory = mkdtempSync(join(tmpdir(), "strata-metrics-"));
    const clock = new VirtualClock();
    const open = () =>
      openSqliteMetricStore({ path: join(directory, "metrics.db"), clock, logger: silentLogger });
    const bench = {
      clock,
      store: open(),
      reopen() {
        bench.store.close();
        bench.store = open();
        return bench.store;
      },
      dispose: () => rmSync(directory, { recursive: true }),
    };
    return bench;
  },
  { survives: true },
);

describe("the file", () => {
  let directory: string;
  let path: string;
  let clock: VirtualClock;
  const errors = vi.fn();
  const logger = { ...silentLogger, error: errors, warn: vi.fn(), child: () => logger };
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "strata-metrics-"));
    path = join(directory, "metrics.db");
    clock = new VirtualClock(1_700_000_040_000);
    errors.mockClear();
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const open = () => openSqliteMetricStore({ path, clock, logger });
  const series = { subject: "/instances/p/a", uid: "0000000000000001", metric: "cpu" };
  const sample = (value: number, metric = "cpu"): Sample => ({ ...series, metric, at: clock.now(), value });
  const everything = () => ({
    ...series,
    from: clock.now() - 7_000_000,
    until: clock.now() + 1,
    stepMs: 1_000,
  });

  test("is its owner's alone", () => {
    open().close();
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("a crash loses the last second, and nothing is doubled, wherever tails were moved", async () => {
    const store = open();
    for (let i = 0; i < 400; i++) {
      store.record(["cpu", "memory", "sent"].map((metric) => sample(i, metric)));
      await clock.advance(5_000);
    }
    store.record([sample(1_000)]);
    const before = store.range(everything());
    expect(before).toHaveLength(401);
    // Nothing is closed: another process finds what this one has committed.
    const copy = join(directory, "copy.db");
    for (const suffix of ["", "-wal"]) copyIfThere(`${path}${suffix}`, `${copy}${suffix}`);
    const other = openSqliteMetricStore({ path: copy, clock, logger });
    expect(other.range(everything())).toEqual(before.slice(0, -1));
    const minutes = { ...everything(), from: clock.now() - 8_000_000, stepMs: 60_000 };
    expect(other.range(minutes).at(-2)).toEqual(store.range(minutes).at(-2));
    expect(errors).not.toHaveBeenCalled();
    other.close();
    store.close();
  });

  test("a file of the version before goes on, and tells of no sample twice", async () => {
    const store = open();
    for (let i = 0; i < 400; i++) {
      store.record([sample(i)]);
      await clock.advance(5_000);
    }
    const before = store.range(everything());
    store.close();
    const database = new DatabaseSync(path);
    database.exec("ALTER TABLE series DROP COLUMN moved; PRAGMA user_version = 1");
    database.close();
    const upgraded = open();
    expect(upgraded.range(everything())).toEqual(before);
    expect(errors).not.toHaveBeenCalled();
    upgraded.close();
  });

  test("the journal does not grow with time", async () => {
    const store = open();
    const sizes: number[] = [];
    for (let i = 0; i < 4_000; i++) {
      store.record([sample(i), sample(i, "memory")]);
      await clock.advance(5_000);
      if (i % 1_000 === 999) sizes.push(journalRows(path));
    }
    store.close();
    expect(Math.max(...sizes)).toBeLessThan(500);
  });

  test.each<[string, string | Uint8Array]>([
    ["text", "this is no database, and long enough to be looked at ".repeat(100)],
    [
      "a header with rubbish behind it",
      Buffer.concat([Buffer.from("SQLite format 3\0"), Buffer.alloc(8_000, 7)]),
    ],
  ])("%s is moved aside with a line in the log", (_name, content) => {
    writeFileSync(path, content);
    const store = open();
    store.record([sample(1)]);
    store.close();
    expect(errors).toHaveBeenCalledTimes(1);
    expect(errors.mock.calls[0]?.[1]).toMatch(/damaged: it was moved aside/);
    expect(statSync(`${path}.damaged`).size).toBe(content.length);
    const again = open();
    expect(again.latest(series, 0)?.value).toBe(1);
    again.close();
  });

  test("damage that shows while it is used loses the past, not the present", async () => {
    const store = open();
    store.record([sample(1)]);
    await clock.advance(1_000);
    store.close();
    const bytes = Buffer.alloc(statSync(path).size, 0xee);
    // The header stays, so it opens; every page behind it is rubbish.
    readFileSync(path).copy(bytes, 0, 0, 4096);
    writeFileSync(path, bytes);
    const damaged = open();
    damaged.record([sample(2)]);
    await clock.advance(60_000);
    damaged.record([sample(3)]);
    await clock.advance(60_000);
    damaged.close();
    expect(errors.mock.calls.map((call) => call[1]).join()).toMatch(/damaged: it was moved aside/);
    const again = open();
    expect(again.latest(series, 0)?.value).toBe(3);
    again.close();
  });

  test("a directory that is not there leaves a store in memory", () => {
    const store = openSqliteMetricStore({ path: join(directory, "gone", "metrics.db"), clock, logger });
    store.record([sample(1)]);
    expect(store.range(everything())).toHaveLength(1);
    store.close();
    expect(errors.mock.calls[0]?.[1]).toMatch(/in memory until the daemon is started again/);
  });
});

function copyIfThere(from: string, to: string): void {
  if (existsSync(from)) copyFileSync(from, to);
}

function journalRows(path: string): number {
  const copy = `${path}.look`;
  for (const suffix of ["", "-wal"]) copyIfThere(`${path}${suffix}`, `${copy}${suffix}`);
  const database = new DatabaseSync(copy);
  const { count } = database.prepare("SELECT count(*) AS count FROM journal").get() as { count: number };
  database.close();
  return count;
}
