/** Each moment at which a root that is made anew can be interrupted, as it is found on disk. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createDisks } from "./create-disks.ts";
import type { Disks } from "./disks.ts";

const { signal } = new AbortController();
const [before, after] = ["sha256:old", "sha256:new"];
let directory: string;
let disks: Disks;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-roots-"));
  disks = createDisks({
    directory,
    images: {
      vmDisk: async () => ({ path: "/nowhere", format: "qcow2", sizeMib: 64 }),
      containerTree: async () => ({ path: "/nowhere", idBase: 0, idCount: 1 }),
    },
  });
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const request = (imageDigest: string, generation: number) =>
  ({ uid: "root", type: "vm", sizeMib: 64, imageDigest, generation }) as const;
const path = (name: string) => join(directory, "root", name);

/** What a process that was killed left. */
async function found(description: object, files: Record<string, string>): Promise<void> {
  await mkdir(join(directory, "root"));
  const common = { version: 1, type: "vm", sizeMib: 64 };
  await writeFile(path("disk.json"), JSON.stringify({ ...common, ...description }));
  for (const [name, text] of Object.entries(files)) await writeFile(path(name), text);
}

const root = () => readFile(path("disk.qcow2"), "utf8");

test("before the description names the new one, the old one is untouched", async () => {
  await found(
    { imageDigest: before },
    { "disk.qcow2": "old", "disk.qcow2.anew": "new", "disk.qcow2.anew.new": "n" },
  );
  expect(await disks.ensureRoot(request(before, 0), signal)).not.toHaveProperty("generation");
  expect(await root()).toBe("old");
});

test("from then on the new one takes its place", async () => {
  const named = { imageDigest: after, generation: 1, replacing: true };
  await found(named, { "disk.qcow2": "old", "disk.qcow2.anew": "new" });
  expect(await disks.ensureRoot(request(after, 1), signal)).toMatchObject({ generation: 1 });
  expect(await root()).toBe("new");
  expect((await readdir(join(directory, "root"))).sort()).toEqual(["disk.json", "disk.qcow2"]);
});

test("also when only the last word was missing, and what was written since stays", async () => {
  await found({ imageDigest: after, generation: 1, replacing: true }, { "disk.qcow2": "new, and used" });
  await disks.ensureRoot(request(after, 1), signal);
  expect(await root()).toBe("new, and used");
  expect(JSON.parse(await readFile(path("disk.json"), "utf8"))).not.toHaveProperty("replacing");
});

test("the old one is never asked for again, and nothing is made of the wrong image or size", async () => {
  await found({ imageDigest: after, generation: 1 }, { "disk.qcow2": "new" });
  for (const wrong of [request(before, 0), request(before, 1), { ...request(after, 2), sizeMib: 65 }]) {
    await expect(disks.ensureRoot(wrong, signal)).rejects.toMatchObject({ code: "Conflict" });
  }
  expect(await root()).toBe("new");
});

test("an image that does not fit leaves the old one", async () => {
  await found({ imageDigest: before, sizeMib: 32 }, { "disk.qcow2": "old" });
  const small = { ...request(after, 1), sizeMib: 32 };
  await expect(disks.ensureRoot(small, signal)).rejects.toMatchObject({ code: "Invalid" });
  expect(await root()).toBe("old");
  expect(JSON.parse(await readFile(path("disk.json"), "utf8"))).toMatchObject({ imageDigest: before });
});
