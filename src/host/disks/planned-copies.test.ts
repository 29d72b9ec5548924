import { access, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findMemory } from "./disk-parts.ts";
import { finishCopies, planCopies } from "./planned-copies.ts";

let top: string;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), "strata-planned-"));
  await mkdir(join(top, "volume1"));
  await writeFile(join(top, "volume1/data.raw"), "what a machine wrote");
});
afterEach(() => rm(top, { recursive: true }));

const isThere = (path: string) =>
  access(join(top, path)).then(
    () => true,
    () => false,
  );

test("a copy of what a machine had is to be checked, whatever becomes of the volume meanwhile", async () => {
  await writeFile(join(top, "volume1/lent"), "");
  const [planned] = await planCopies(top, { volume: "volume1" }, "copy1");
  await writeFile(planned?.to ?? "", "what a machine wrote");
  await rm(join(top, "volume1/lent"));
  await finishCopies(top, { volume: "volume1" }, "copy1");
  expect(await isThere("copy1/data.raw")).toBe(true);
  expect(await isThere("copy1/lent")).toBe(true);
});

test("a copy of what no machine had is not", async () => {
  const [planned] = await planCopies(top, { volume: "volume1" }, "copy1");
  await writeFile(planned?.to ?? "", "what a machine wrote");
  await finishCopies(top, { volume: "volume1" }, "copy1");
  expect(await isThere("copy1/lent")).toBe(false);
});

test("memory is a part of the copy of several disks, and has its name with them", async () => {
  const request = { disks: ["volume1"], memoryBytes: 1024 };
  const [planned] = await planCopies(top, request, "copy1");
  const path = await findMemory(join(top, "copy1"));
  await writeFile(planned?.to ?? "", "what a machine wrote");
  await writeFile(path, "what a machine thought");
  await writeFile(`${path}.json`, "{}");
  expect(await isThere("copy1/parts")).toBe(false);
  for (let repeat = 0; repeat < 2; repeat++) await finishCopies(top, request, "copy1");
  const kept = await findMemory(join(top, "copy1"));
  expect(kept).toBe(path.replace("parts.new", "parts"));
  expect(await isThere(`${kept.slice(top.length)}.json`)).toBe(true);
});

test("memory that could not be kept leaves nothing", async () => {
  const request = { disks: ["volume1"], memoryBytes: 1024 };
  const [planned] = await planCopies(top, request, "copy1");
  await writeFile(planned?.to ?? "", "what a machine wrote");
  await finishCopies(top, request, "copy1");
  await expect(findMemory(join(top, "copy1"))).rejects.toMatchObject({ code: "NotFound" });
  expect(await readdir(join(top, "copy1/parts"))).toEqual(["copy1-volume1"]);
});

test("there must be room for memory beside the disks", async () => {
  const request = { disks: ["volume1"], memoryBytes: 2 ** 60 };
  await expect(planCopies(top, request, "copy1")).rejects.toMatchObject({ code: "Unavailable" });
});
