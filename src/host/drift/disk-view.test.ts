import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DiskView } from "./disk-view.ts";
import { Qcow2File } from "./qcow2-file.ts";
import { clusterBytes, clusters, qcow2In } from "./testing-qcow2.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-view-"));
});
afterEach(() => rm(directory, { recursive: true }));

type Rest<Of> = Of extends [unknown, ...infer Others] ? Others : never;
const qcow2 = (...file: Rest<Parameters<typeof qcow2In>>) => qcow2In(directory, ...file);
const filled = (letter: string) => Buffer.alloc(clusterBytes, letter);
const base = () =>
  qcow2("base", { 0: { plain: filled("a") }, 1: { packed: filled("b") }, 2: { plain: filled("c") } });

test("the machine's own clusters count, then the image's, then zeros", async () => {
  const files = [
    {
      path: await qcow2("own", { 1: "zeros", 2: { plain: filled("C") }, 40: { plain: filled("z") } }),
      format: "qcow2",
    },
    { path: await base(), format: "qcow2" },
  ] as const;
  await using disk = await DiskView.open(files);
  expect(disk.sizeBytes).toBe(clusters * clusterBytes);
  const letters = async (cluster: number) =>
    [...new Set((await disk.read(cluster * clusterBytes, clusterBytes)).toString("latin1"))].join("");
  expect(await Promise.all([0, 1, 2, 3, 40].map(letters))).toEqual(["a", "\0", "C", "\0", "z"]);
  // Over the edges of clusters and chunks, and to the end.
  const across = await disk.read(2 * clusterBytes - 2, 4);
  expect(across.toString("latin1")).toBe("\0\0CC");
  expect((await disk.read(0, clusters * clusterBytes)).length).toBe(clusters * clusterBytes);
  expect((await disk.read((clusters - 1) * clusterBytes, 2 * clusterBytes)).length).toBe(clusterBytes);
  expect((await disk.read(clusters * clusterBytes, 10)).length).toBe(0);
  const written = (offset: number, length: number) => disk.isWritten(offset, length);
  expect(await written(0, clusterBytes)).toBe(false);
  expect(await written(clusterBytes - 1, 2)).toBe(true);
  expect(await written(3 * clusterBytes, 30 * clusterBytes)).toBe(false);
  expect(await written(39 * clusterBytes + 5, clusterBytes)).toBe(true);
});

test("compressed clusters of an image are read", async () => {
  await using disk = await DiskView.open([{ path: await base(), format: "qcow2" }]);
  expect((await disk.read(clusterBytes, clusterBytes)).equals(filled("b"))).toBe(true);
  expect(await disk.isWritten(0, clusterBytes)).toBe(false);
});

test("a raw image below, shorter than the disk", async () => {
  const raw = join(directory, "raw");
  await writeFile(raw, Buffer.from("hello"));
  await using disk = await DiskView.open([
    { path: await qcow2("own", {}), format: "qcow2" },
    { path: raw, format: "raw" },
  ]);
  expect((await disk.read(0, 8)).toString("latin1")).toBe("hello\0\0\0");
  expect((await disk.read(5 * clusterBytes, 3)).toString("latin1")).toBe("\0\0\0");
});

test.each<[string, (header: Buffer, l1: Buffer) => void, string]>([
  ["no qcow2", (header) => header.writeUInt32BE(1, 0), "Unavailable"],
  ["of an unknown version", (header) => header.writeUInt32BE(4, 4), "Unsupported"],
  ["with absurd clusters", (header) => header.writeUInt32BE(40, 20), "Unavailable"],
  ["encrypted", (header) => header.writeUInt32BE(1, 32), "Unsupported"],
  ["with its data elsewhere", (header) => header.writeBigUInt64BE(4n, 72), "Unsupported"],
  ["with a feature above the lowest 32", (header) => header.writeBigUInt64BE(1n << 40n, 72), "Unsupported"],
  ["with a feature of the far end", (header) => header.writeBigUInt64BE(1n << 63n, 72), "Unsupported"],
  ["with too small a table", (header) => header.writeBigUInt64BE(1n << 50n, 24), "Unavailable"],
  ["with a table outside", (header) => header.writeBigUInt64BE(1n << 40n, 40), "Unavailable"],
])("a file that is %s is refused", async (_what, change, code) => {
  const path = await qcow2("bad", {}, change);
  await using file = await open(path, "r");
  await expect(Qcow2File.open(file)).rejects.toMatchObject({ code });
});

test("a table outside of the file is an error when it is needed", async () => {
  const path = await qcow2("bad", {}, (_header, l1) => l1.writeBigUInt64BE(1n << 45n, 0));
  await using file = await open(path, "r");
  await expect((await Qcow2File.open(file)).cluster(0)).rejects.toMatchObject({ code: "Unavailable" });
});

test("what is read once is the same, wherever a read begins and ends, and nothing is kept of it", async () => {
  const base = await qcow2("base.qcow2", { 1: { plain: Buffer.alloc(clusterBytes, "b") } });
  const own = await qcow2("own.qcow2", { 2: { packed: Buffer.alloc(clusterBytes, "o") }, 3: "zeros" });
  await using disk = await DiskView.open([
    { path: own, format: "qcow2" },
    { path: base, format: "qcow2" },
  ]);
  for (const [offset, length] of [
    [0, 5 * clusterBytes],
    [clusterBytes + 17, 2 * clusterBytes],
    [(clusters - 1) * clusterBytes + 5, clusterBytes],
    [clusters * clusterBytes, 512],
  ] as const) {
    expect(await disk.readOnce(offset, length)).toEqual(await disk.read(offset, length));
  }
});
