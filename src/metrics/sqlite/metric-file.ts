import { closeSync, openSync, renameSync, rmSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { describeError, StrataError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";

/**
 * - series: names of series as integers. `newest`: time of the newest sample in the chunks, not of those in the journal.
 *   `moved`: the row of the journal up to which its samples are in the chunks.
 * - chunks: steps of a series (chunk.ts).
 * - journal: what has come lately, as it came, a row each second: it is what a crash would lose otherwise.
 */
const schemaVersion = 2;
/** "StMt" */
const applicationId = 0x53744d74;
const schema = `
  CREATE TABLE series (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, uid TEXT NOT NULL, metric TEXT NOT NULL,
    newest INTEGER NOT NULL, moved INTEGER NOT NULL DEFAULT 0, UNIQUE (subject, uid, metric)) STRICT;
  CREATE TABLE chunks (level INTEGER NOT NULL, series INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (level, series, start)) STRICT, WITHOUT ROWID;
  CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL) STRICT;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
`;

/**
 * From version 1. What of the journal is in the chunks is not known then: it takes the place of what they have from its first
 * sample on.
 */
const upgrade = `
  ALTER TABLE series ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
  PRAGMA user_version = ${schemaVersion};
`;

const texts = {
  begin: "BEGIN IMMEDIATE",
  commit: "COMMIT",
  rollback: "ROLLBACK",
  lastSeries: "SELECT coalesce(max(id), 0) AS id, count(*) AS count FROM series",
  findSeries: "SELECT id, newest FROM series WHERE subject = ? AND uid = ? AND metric = ?",
  seriesById: "SELECT subject, uid, metric, newest, moved FROM series WHERE id = ?",
  addSeries: "INSERT OR REPLACE INTO series (id, subject, uid, metric, newest) VALUES (?, ?, ?, ?, ?)",
  /** newest, id; what is in the journal now is in the chunks */
  setMoved: "UPDATE series SET newest = ?, moved = (SELECT coalesce(max(id), 0) FROM journal) WHERE id = ?",
  removeSeries: "DELETE FROM series WHERE id = ?",
  /** id (exclusive), count */
  someSeries: "SELECT id, newest FROM series WHERE id > ? ORDER BY id LIMIT ?",
  oldestSeries: "SELECT id FROM series ORDER BY newest LIMIT ?",
  addJournal: "INSERT INTO journal (data) VALUES (?)",
  journal: "SELECT id, data FROM journal ORDER BY id",
  lastJournal: "SELECT coalesce(max(id), 0) AS id FROM journal",
  cutJournal: "DELETE FROM journal WHERE id <= ?",
  chunk: "SELECT data FROM chunks WHERE level = ? AND series = ? AND start = ?",
  /** level, series, from (inclusive), until (exclusive) */
  chunks:
    "SELECT start, data FROM chunks WHERE level = ? AND series = ? AND start >= ? AND start < ? ORDER BY start",
  putChunk: "INSERT OR REPLACE INTO chunks (level, series, start, data) VALUES (?, ?, ?, ?)",
  /** level, series, start (exclusive) */
  cutLaterChunks: "DELETE FROM chunks WHERE level = ? AND series = ? AND start > ?",
  /** level, series, until (exclusive) */
  cutChunks: "DELETE FROM chunks WHERE level = ? AND series = ? AND start < ?",
} as const;

export type Statements = Readonly<Record<keyof typeof texts, StatementSync>>;

/** The database of a metric store. It can always be begun anew, because samples may be lost without harm. */
export class MetricFile {
  readonly #path: string;
  readonly #logger: Logger;
  #database: DatabaseSync;
  #statements: Statements;

  constructor(path: string, logger: Logger) {
    this.#path = path;
    this.#logger = logger;
    [this.#database, this.#statements] = this.#openSomehow();
  }

  get statements(): Statements {
    return this.#statements;
  }

  /** All or nothing. */
  transact(action: (statements: Statements) => void): void {
    const { begin, commit, rollback } = this.#statements;
    begin.run();
    try {
      action(this.#statements);
      commit.run();
    } catch (error) {
      // SQLite has rolled back itself after some failures.
      if (this.#database.isTransaction) rollback.run();
      throw error;
    }
  }

  /** Moves the file aside, replacing what was aside before, and begins an empty one. */
  beginAnew(reason: unknown): void {
    this.#closeQuietly();
    this.#moveAside(reason);
    [this.#database, this.#statements] = this.#openSomehow();
  }

  close(): void {
    this.#closeQuietly();
  }

  #closeQuietly(): void {
    try {
      this.#database.close();
    } catch (error) {
      this.#logger.warn({ error: describeError(error) }, "closing the metrics file failed");
    }
  }

  /** In memory when the disk refuses: the daemon goes on without history. */
  #openSomehow(): [DatabaseSync, Statements] {
    try {
      return open(this.#path);
    } catch (error) {
      if (!isDamage(error)) return this.#openInMemory(error);
      this.#moveAside(error);
    }
    try {
      return open(this.#path);
    } catch (error) {
      return this.#openInMemory(error);
    }
  }

  #openInMemory(reason: unknown): [DatabaseSync, Statements] {
    this.#logger.error(
      { path: this.#path, error: describeError(reason) },
      "the metrics file cannot be opened: metrics are kept in memory until the daemon is started again",
    );
    return open(":memory:");
  }

  #moveAside(reason: unknown): void {
    const aside = `${this.#path}.damaged`;
    this.#logger.error(
      { path: this.#path, movedTo: aside, error: describeError(reason) },
      "the metrics file is damaged: it was moved aside, and recording begins anew",
    );
    try {
      renameSync(this.#path, aside);
    } catch (error) {
      this.#logger.warn({ error: describeError(error) }, "the damaged metrics file could not be moved aside");
    }
    for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(`${this.#path}${suffix}`, { force: true });
  }
}

function open(path: string): [DatabaseSync, Statements] {
  // SQLite follows the umask, and the WAL takes its mode from this file.
  if (path !== ":memory:") closeSync(openSync(path, "a", 0o600));
  const database = new DatabaseSync(path);
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE");
    database.exec("PRAGMA journal_mode = WAL");
    database.exec("PRAGMA synchronous = NORMAL");
    database.exec("PRAGMA cache_size = -2048");
    database.exec("PRAGMA journal_size_limit = 8388608");
    prepareSchema(database);
    const prepared = Object.entries(texts).map(([name, text]) => [name, database.prepare(text)]);
    return [database, Object.fromEntries(prepared) as Statements];
  } catch (error) {
    database.close();
    throw error;
  }
}

function prepareSchema(database: DatabaseSync): void {
  const first = (sql: string) => Object.values(database.prepare(sql).get() ?? {})[0];
  if (first("SELECT count(*) FROM sqlite_schema") === 0) {
    database.exec(`BEGIN; ${schema} COMMIT`);
    return;
  }
  const version = first("PRAGMA application_id") === applicationId && first("PRAGMA user_version");
  if (version === 1) database.exec(`BEGIN; ${upgrade} COMMIT`);
  if (version === 1 || version === schemaVersion) return;
  throw new StrataError("Unsupported", "the file is no metrics file of this version of Strata");
}

/** SQLITE_CORRUPT, SQLITE_NOTADB (https://sqlite.org/rescode.html), or another format. */
export function isDamage(error: unknown): boolean {
  if (error instanceof StrataError) return error.code === "Unsupported";
  if (!(error instanceof Error) || !("errcode" in error) || typeof error.errcode !== "number") return false;
  return [11, 26].includes(error.errcode & 0xff);
}
