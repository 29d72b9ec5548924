import { access, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
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
