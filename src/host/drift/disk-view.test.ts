import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DiskView } from "./disk-view.ts";
import { Qcow2File } from "./qcow2-file.ts";

const clusterBytes = 4096;
const clusters = 64;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-view-"));
});
afterEach(() => rm(directory, { recursive: true }));

type Cluster = { plain: Buffer } | { packed: Buffer } | "zeros";

/** A qcow2 of 64 small clusters: header, one table of tables, one table, then the content. */
async function qcow2(
  name: string,
  content: Record<number, Cluster>,
  change: (header: Buffer, l1: Buffer) => void = () => {},
): Promise<string> {
  const header = Buffer.alloc(clusterBytes);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(12, 20);
  header.writeBigUInt64BE(BigInt(clusters * clusterBytes), 24);
  header.writeUInt32BE(1, 36);
  header.writeBigUInt64BE(BigInt(clusterBytes), 40);
  header.writeUInt32BE(104, 100);
  const l1 = Buffer.alloc(clusterBytes);
  l1.writeBigUInt64BE(BigInt(2 * clusterBytes) | (1n << 63n), 0);
  const l2 = Buffer.alloc(clusterBytes);
  const data: Buffer[] = [];
  let at = 3 * clusterBytes;
  for (const [index, cluster] of Object.entries(content)) {
    const entry = Number(index) * 8;
    if (cluster === "zeros") {
      l2.writeBigUInt64BE(1n, entry);
      continue;
    }
    const packed = "packed" in cluster ? deflateRawSync(cluster.packed) : undefined;
    const bytes = Buffer.alloc(clusterBytes);
    if (packed) packed.copy(bytes);
    else if ("plain" in cluster) cluster.plain.copy(bytes);
    const sectors = packed ? Math.ceil(packed.length / 512) - 1 : 0;
    l2.writeBigUInt64BE(
      packed ? (1n << 62n) | (BigInt(sectors) << 58n) | BigInt(at) : BigInt(at) | (1n << 63n),
      entry,
    );
    data.push(bytes);
    at += clusterBytes;
  }
  change(header, l1);
  const path = join(directory, name);
  await writeFile(path, Buffer.concat([header, l1, l2, ...data]));
  return path;
}

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
