import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemRandom } from "../core/random.ts";
import { ensureMetadataKey } from "./metadata-key.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "metadata-key-"));
});
afterEach(() => rm(directory, { recursive: true }));

it("is made once, for its owner only", async () => {
  const key = await ensureMetadataKey(directory, systemRandom);
  expect(key).toHaveLength(32);
  expect((await stat(join(directory, "metadata.key"))).mode & 0o777).toBe(0o600);
  expect(Buffer.from(await ensureMetadataKey(directory, systemRandom))).toEqual(Buffer.from(key));
});

it("is made anew when it is damaged", async () => {
  await writeFile(join(directory, "metadata.key"), "short");
  expect(await ensureMetadataKey(directory, systemRandom)).toHaveLength(32);
});
