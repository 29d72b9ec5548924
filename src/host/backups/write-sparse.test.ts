import { mkdtempDisposable, open, readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { writeSparse } from "./write-sparse.ts";

const mib = 1024 ** 2;

async function* chunks(count: number, fill: number) {
  for (let i = 0; i < count; i++) yield Buffer.alloc(mib, fill);
}

test("holes need no room; what is written asks for it ahead, and stops where there is none", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-sparse-"));
  const path = join(top.path, "disk");
  await using file = await open(path, "wx");
  const asked: number[] = [];
  const onWritten = () => {};
  const requireRoom = async (bytes: number) => {
    asked.push(bytes);
    if (asked.length > 1) throw new StrataError("Unavailable", "no space left");
  };
  expect(await writeSparse(file, chunks(100, 0), 100 * mib, { requireRoom, onWritten })).toBe(100 * mib);
  expect(asked).toEqual([]);
  const full = writeSparse(file, chunks(100, 7), 100 * mib, { requireRoom, onWritten });
  await expect(full).rejects.toMatchObject({ code: "Unavailable" });
  expect(asked).toEqual([64 * mib, 64 * mib]);
  expect((await stat(path)).size).toBe(64 * mib);
  expect((await readFile(path)).every((byte) => byte === 7)).toBe(true);
});

test("no more than the disk has", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-sparse-"));
  await using file = await open(join(top.path, "disk"), "wx");
  const told: number[] = [];
  const hooks = { requireRoom: async () => {}, onWritten: (bytes: number) => told.push(bytes) };
  expect(await writeSparse(file, chunks(3, 1), 2 * mib, hooks)).toBe(2 * mib);
  expect(told).toEqual([mib, 2 * mib]);
});
