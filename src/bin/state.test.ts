import { existsSync } from "node:fs";
import { mkdtempDisposable } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isSqliteError } from "../store/sqlite/sqlite-errors.ts";
import { openState } from "./state.ts";

test.each([
  [true, false],
  [false, true],
  [true, true],
  [false, false],
])("one daemon a directory: fake %s, then fake %s", async (first, second) => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-state-"));
  const stateDir = directory.path;
  const state = await openState({ stateDir, fake: first });
  const error = await openState({ stateDir, fake: second }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "Unavailable" });
  expect(isSqliteError((error as Error).cause, "busy")).toBe(true);
  // Whoever was too late has not touched anything.
  expect(existsSync(join(stateDir, "store.db"))).toBe(!first);
  await state.close();
  await (await openState({ stateDir, fake: second })).close();
});

test("a store that cannot be opened leaves the directory free", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-state-"));
  const stateDir = directory.path;
  const { DatabaseSync } = await import("node:sqlite");
  const other = new DatabaseSync(join(stateDir, "store.db"));
  other.exec("PRAGMA locking_mode = EXCLUSIVE; CREATE TABLE t (a)");
  await expect(openState({ stateDir, fake: false })).rejects.toMatchObject({ code: "Unavailable" });
  await (await openState({ stateDir, fake: true })).close();
  other.close();
});

test.each([
  ["real", false, { size: 1 }, 1],
  ["pretended", true, undefined, 0],
])("after a restart, the state of a %s host", async (_, fake, value, revision) => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-state-"));
  const stateDir = directory.path;
  const before = await openState({ stateDir, fake });
  await before.store.commit([{ put: "/things/one", value: { size: 1 } }]);
  expect((await before.store.get("/things/one"))?.value).toEqual({ size: 1 });
  await before.close();
  const after = await openState({ stateDir, fake });
  expect((await after.store.get("/things/one"))?.value).toEqual(value);
  expect(await after.store.revision()).toBe(revision);
  await after.close();
});
