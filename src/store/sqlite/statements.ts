import type { DatabaseSync, StatementSync } from "node:sqlite";

/** Every statement of the store, prepared once. database.ts explains the tables. */
const texts = {
  begin: "BEGIN IMMEDIATE",
  commit: "COMMIT",
  rollback: "ROLLBACK",

  state: "SELECT revision, oldest FROM state",
  setRevision: "UPDATE state SET revision = ?",
  setOldest: "UPDATE state SET oldest = ?",

  get: "SELECT revision, value FROM entries WHERE key = ?",
  revisionOf: "SELECT revision FROM entries WHERE key = ?",
  insert: "INSERT INTO entries (key, revision, value) VALUES (?, ?, ?)",
  update: "UPDATE entries SET revision = ?, value = ? WHERE key = ?",
  remove: "DELETE FROM entries WHERE key = ?",

  /** Before the change that it records. */
  recordCreation: "INSERT INTO history (id, key) VALUES (?, ?)",
  recordChange: `INSERT INTO history (id, key, old_revision, old_value)
    SELECT ?, key, revision, value FROM entries WHERE key = ?`,

  /** from (inclusive), to (exclusive) */
  list: "SELECT key, revision, value FROM entries WHERE key >= ? AND key < ? ORDER BY key",
  /** from (inclusive), to (exclusive), revision: what has not changed since */
  listUnchanged: `SELECT key, revision, value FROM entries
    WHERE key >= ? AND key < ? AND revision <= ? ORDER BY key`,
  /** from (inclusive), to (exclusive), last position of the revision: keys that changed since, and where first */
  listChanged: `SELECT key, min(id) AS id FROM history
    WHERE key >= ? AND key < ? AND id > ? GROUP BY key ORDER BY key`,
  replacedAt: "SELECT key, old_revision AS revision, old_value AS value FROM history WHERE id = ?",

  /** position, count */
  scan: "SELECT id, key FROM history WHERE id > ? ORDER BY id LIMIT ?",
  /** key, position: what the next event of the key replaced is what this one wrote */
  nextReplaced: "SELECT old_value AS value FROM history WHERE key = ? AND id > ? ORDER BY id LIMIT 1",

  /** position, count */
  compact: "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE id < ? ORDER BY id LIMIT ?)",
} as const;

export type Statements = Readonly<Record<keyof typeof texts, StatementSync>>;

export function prepareStatements(database: DatabaseSync): Statements {
  const prepared = Object.entries(texts).map(([name, text]) => [name, database.prepare(text)]);
  return Object.fromEntries(prepared) as Statements;
}
