import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { hasCode } from "../../core/errors.ts";
import type { Store } from "../store.ts";
import { openSqliteStore } from "./sqlite-store.ts";

let directory = "";
let path = "";
const opened: Store[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-file-"));
  path = join(directory, "store.db");
});
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
  rmSync(directory, { recursive: true });
});

function open(maxSizeBytes?: number): Store {
  const store = openSqliteStore(maxSizeBytes === undefined ? { path } : { path, maxSizeBytes });
  opened.push(store);
  return store;
}

function openError(): unknown {
  try {
    open();
  } catch (error) {
    return error;
  }
  throw new Error("the store opened");
}

/** Runs SQL on the file as another program would. */
function withSqlite(sql: string): void {
  const database = new DatabaseSync(path);
  database.exec(sql);
  database.close();
}

const mode = (file: string) => statSync(file).mode & 0o777;

describe("the file", () => {
  test("is for its owner only, the log beside it too", async () => {
    await open().commit([{ put: "a", value: 1 }]);
    expect(mode(path)).toBe(0o600);
    expect(mode(`${path}-wal`)).toBe(0o600);
  });

  test("loses permissions that were too wide", async () => {
    await open().close();
    chmodSync(path, 0o644);
    open();
    expect(mode(path)).toBe(0o600);
  });

  test("belongs to one store at a time, until it closes", async () => {
    const first = open();
    expect(openError()).toMatchObject({ code: "Unavailable", message: expect.stringContaining(path) });
    await first.commit([{ put: "a", value: 1 }]);
    await first.close();
    expect(await open().get("a")).toMatchObject({ value: 1 });
  });

  test("of a newer Strata is refused and left alone", async () => {
    await open().close();
    withSqlite("PRAGMA user_version = 99");
    const before = readFileSync(path);
    expect(openError()).toMatchObject({ code: "Unsupported", message: expect.stringContaining("format 99") });
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("of another program is refused and left alone", () => {
    withSqlite("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    const before = readFileSync(path);
    expect(openError()).toMatchObject({ code: "Unsupported" });
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("that is no database is refused and left alone", () => {
    writeFileSync(path, "not a database, but long enough to hold a header ".repeat(100));
    expect(openError()).toMatchObject({ code: "Unsupported" });
    expect(readFileSync(path, "utf8")).toMatch(/^not a database/);
  });

  test.each([
    ["empty", () => writeFileSync(path, "")],
    ["a header only", () => withSqlite("PRAGMA journal_mode = WAL")],
  ])("left %s by a crash during creation is taken over", async (_, leave) => {
    leave();
    expect(await open().commit([{ put: "a", value: 1 }])).toBe(1);
  });

  test("in a directory that is missing is Unavailable", () => {
    path = join(directory, "missing", "store.db");
    expect(openError()).toMatchObject({ code: "Unavailable", message: expect.stringContaining("missing") });
  });
});

describe("a full disk", () => {
  const maxSizeBytes = 512 * 1024;

  /** Commits until there is no space; gives back what was acknowledged. */
  async function fill(store: Store): Promise<string[]> {
    const keys: string[] = [];
    for (let i = 0; ; i++) {
      try {
        await store.commit([
          { put: `k${i}`, value: "x".repeat(10_000) },
          { put: "last", value: i },
        ]);
        keys.push(`k${i}`);
      } catch (error) {
        expect(hasCode(error, "Unavailable") && error.message).toContain("no space");
        return keys;
      }
    }
  }

  async function expectExactly(store: Store, keys: string[]): Promise<void> {
    const { entries } = await store.list("k", { limit: 1000 });
    expect(entries.map((entry) => entry.key)).toEqual([...keys].sort());
    expect((await store.get("last"))?.value).toBe(keys.length - 1);
    expect(await store.revision()).toBe(keys.length);
  }

  test("refuses a commit wholly, and what was acknowledged stays, also after reopening", async () => {
    const store = open(maxSizeBytes);
    const keys = await fill(store);
    expect(keys.length).toBeGreaterThan(10);
    await expectExactly(store, keys);
    await expect(store.commit([{ put: "big", value: "x".repeat(100_000) }])).rejects.toMatchObject({
      code: "Unavailable",
    });
    await expectExactly(store, keys);
    await store.close();
    await expectExactly(open(maxSizeBytes), keys);
  });

  test("shows watchers nothing of a failed commit", async () => {
    const store = open(maxSizeBytes);
    const keys = await fill(store);
    const events: string[] = [];
    for await (const event of store.watch("", 0, new AbortController().signal)) {
      events.push(event.key);
      if (events.length === keys.length * 2) break;
    }
    expect(events).toEqual(keys.flatMap((key) => [key, "last"]));
  });

  test("is over once space is made: compact, delete, compact", async () => {
    const store = open(maxSizeBytes);
    const keys = await fill(store);
    for (const key of keys.slice(0, 10)) {
      await store.compact(await store.revision());
      await store.commit([{ delete: key }]);
    }
    await store.compact(await store.revision());
    const revision = await store.commit([{ put: "big", value: "x".repeat(80_000) }]);
    expect(await store.get("big")).toMatchObject({ revision });
  });

  test("fails only the commit that is too large, not those beside it", async () => {
    const store = open(maxSizeBytes);
    const results = await Promise.allSettled([
      store.commit([{ put: "a", value: 1 }]),
      store.commit([{ put: "large", value: "x".repeat(maxSizeBytes) }]),
      store.commit([{ put: "b", value: 1, ifRevision: 0 }]),
    ]);
    expect(results).toMatchObject([
      { status: "fulfilled" },
      { status: "rejected", reason: { code: "Unavailable" } },
      { status: "fulfilled" },
    ]);
    expect((await store.list("", { limit: 10 })).entries.map((entry) => entry.key)).toEqual(["a", "b"]);
  });
});

describe("a failure in the middle of a commit", () => {
  test("undoes this commit, and no other", async () => {
    await open().close();
    withSqlite(`CREATE TRIGGER trip BEFORE INSERT ON entries WHEN new.key = 'trip'
      BEGIN SELECT RAISE(FAIL, 'as the test wants'); END`);
    const store = open();
    const results = await Promise.allSettled([
      store.commit([{ put: "a", value: 1 }]),
      store.commit([
        { put: "half", value: 1 },
        { put: "trip", value: 1 },
      ]),
      store.commit([{ put: "b", value: 1, ifRevision: 0 }]),
    ]);
    expect(results).toMatchObject([{ value: 1 }, { reason: { code: "Internal" } }, { value: 2 }]);
    expect((await store.list("", { limit: 10 })).entries.map((entry) => entry.key)).toEqual(["a", "b"]);
    expect(await store.commit([{ put: "c", value: 1 }])).toBe(3);
  });
});
