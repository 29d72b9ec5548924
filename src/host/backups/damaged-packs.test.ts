import { createHash } from "node:crypto";
import { mkdir, mkdtempDisposable, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { complainedPacks, putAside } from "./damaged-packs.ts";

const idOf = (text: string) => createHash("sha256").update(text).digest("hex");
const [whole, flipped, gone] = [idOf("whole"), idOf("flipped"), idOf("gone")];

test("packs in what restic 0.14 complains of, once each", () => {
  const output = [
    `Pack ID does not match, want ${flipped}, got ${whole}`,
    `pack ${gone}: unexpected file size: got 1048576, expected 8389346`,
    `pack ${gone} failed to download: StreamPack: ReadFull: unexpected EOF`,
    `  tree ${whole}: file "disk.raw" blob ${whole} not found in index`,
  ].join("\n");
  expect(complainedPacks(output)).toEqual([flipped, gone]);
});

test("what is not what its name says is put aside, and nothing else", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-packs-"));
  const pathOf = (id: string) => join(top.path, "data", id.slice(0, 2), id);
  for (const [id, text] of [
    [whole, "whole"],
    [flipped, "flopped"],
  ] as const) {
    await mkdir(join(top.path, "data", id.slice(0, 2)), { recursive: true });
    await writeFile(pathOf(id), text);
  }
  expect(await putAside(top.path, [flipped, gone])).toBe(true);
  expect(await readdir(join(top.path, "damaged-packs"))).toEqual([flipped]);
  expect(await putAside(top.path, [flipped])).toBe(true);
  expect(await putAside(top.path, [whole])).toBe(false);
  expect(await readdir(join(top.path, "data", whole.slice(0, 2)))).toContain(whole);
});
