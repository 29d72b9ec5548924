import { chmodSync, closeSync, existsSync, fsyncSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { StrataError } from "../../core/errors.ts";
import { isSqliteError, toStoreError } from "./sqlite-errors.ts";

/**
 * The file of the SQLite store: how it is created, locked and recognised. What the pragmas are for:
 *
 * - `locking_mode=EXCLUSIVE`: one process, from opening to closing; the kernel drops the lock when the process dies,
 *   so none is ever stale. It is a POSIX lock: were this process to open and close the file by other means, the lock
 *   would be gone. Nothing but SQLite opens it here. A backup goes through this connection (`VACUUM INTO`).
 * - `journal_mode=WAL`, `synchronous=FULL`: one fsync a transaction, after which it survives power loss.
 * - `cache_size`: bounds the memory; `journal_size_limit`: shrinks the WAL again after a burst.
 */
const schemaVersion = 1;

/** "Stra", so that another program's database is never taken for a store. */
const applicationId = 0x53747261;

/** Covers the shutdown of a daemon that is being replaced; the wait blocks, but nothing runs yet. */
const lockWaitMs = 250;
const pageBytes = 4096;

/**
 * - entries: the current values.
 * - history: one row an event, saying what the event *replaced*; id is the event's position. The value that an event
 *   wrote is what the key's next event replaced, else the current one. So each value is stored once, writing does not
 *   slow down with history, and to compact is to cut off the oldest rows, whatever they say.
 * - state: the latest revision (a commit may leave no event), and the oldest whose events and state are intact.
 */
const schema = `
  CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL,
    value TEXT NOT NULL) STRICT;
  CREATE TABLE history (id INTEGER PRIMARY KEY, key TEXT NOT NULL, old_revision INTEGER, old_value TEXT) STRICT;
  CREATE INDEX history_by_key ON history (key);
  CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, oldest INTEGER NOT NULL)
    STRICT;
  INSERT INTO state VALUES (1, 0, 0);
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
`;

/**
 * Opens the store's file, created with mode 0600 when missing; its directory must exist.
 * @throws Unavailable when another process has it open or it cannot be read and written; Unsupported when it is no
 * store or was written by a newer Strata.
 */
export function openDatabase(path: string, maxSizeBytes: number | undefined): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    createPrivate(path);
    database = new DatabaseSync(path, { timeout: lockWaitMs });
    prepare(database, path, maxSizeBytes);
    return database;
  } catch (error) {
    database?.close();
    throw toOpenError(path, error);
  }
}

/** Before SQLite touches it: SQLite follows the umask, and the WAL takes its mode from this file. */
function createPrivate(path: string): void {
  if (existsSync(path)) {
    chmodSync(path, 0o600);
    return;
  }
  closeSync(openSync(path, "wx", 0o600));
  const directory = openSync(dirname(path), "r");
  fsyncSync(directory);
  closeSync(directory);
}

function prepare(database: DatabaseSync, path: string, maxSizeBytes: number | undefined): void {
  database.exec("PRAGMA locking_mode = EXCLUSIVE");
  // By its tables, not its size: a crash while creating it may leave a file with a header and nothing else.
  const isNew = firstValue(database, "SELECT count(*) FROM sqlite_schema") === 0;
  if (!isNew) checkFormat(database, path);
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  database.exec("PRAGMA cache_size = -4096");
  database.exec("PRAGMA journal_size_limit = 8388608");
  if (maxSizeBytes !== undefined) {
    database.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(maxSizeBytes / pageBytes))}`);
  }
  database.exec("BEGIN EXCLUSIVE");
  if (isNew) database.exec(schema);
  database.exec("COMMIT");
}

function checkFormat(database: DatabaseSync, path: string): void {
  if (firstValue(database, "PRAGMA application_id") !== applicationId) {
    throw new StrataError("Unsupported", `cannot open the store: ${path} is a database of another program`);
  }
  const version = firstValue(database, "PRAGMA user_version");
  if (version !== schemaVersion) {
    throw new StrataError(
      "Unsupported",
      `cannot open the store: ${path} has format ${version}, and this Strata knows format ${schemaVersion}; ` +
        "run the newer Strata that wrote it, or restore a backup",
    );
  }
}

function firstValue(database: DatabaseSync, sql: string): unknown {
  return Object.values(database.prepare(sql).get() ?? {})[0];
}

/** These go to the operator who starts the daemon, so they may name the path. */
function toOpenError(path: string, error: unknown): StrataError {
  if (error instanceof StrataError) return error;
  if (isSqliteError(error, "busy")) {
    return new StrataError(
      "Unavailable",
      `cannot open the store: another Strata daemon is using ${path}; stop it, or give this one its own state directory`,
      { cause: error },
    );
  }
  if (isSqliteError(error, "notADatabase")) {
    return new StrataError("Unsupported", `cannot open the store: ${path} is not a SQLite database`, {
      cause: error,
    });
  }
  if (error instanceof Error && "syscall" in error) {
    return new StrataError(
      "Unavailable",
      `cannot open the store: ${error.message}; check the state directory`,
      {
        cause: error,
      },
    );
  }
  return toStoreError(`open the store ${path}`, path, error);
}
