import { hash } from "node:crypto";
import { expect, test } from "vitest";
import type { RootEntry } from "../../kinds/drift.ts";
import type { Ext4FileSystem, Inode } from "../images/ext4-file-system.ts";
import { driftLimits } from "./drift-limits.ts";
import { readFileSystem } from "./read-file-system.ts";

const signal = new AbortController().signal;
const directoryInode = 2;
const content = Buffer.from("the same content");

/** A root that is one directory, with these names of these inodes; inode 2 is the directory itself. */
function flat(names: Iterable<[string, number]>, change: Partial<Inode> = {}) {
  let reads = 0;
  const inode = async (number: number): Promise<Inode> => ({
    ...{
      number,
      mode: 0o755,
      uid: 0,
      gid: 0,
      sizeBytes: content.length,
      mtimeSeconds: 0,
      links: 1,
      flags: 0,
    },
    ...{
      type: number === directoryInode ? "directory" : "file",
      capability: undefined,
      map: Buffer.alloc(60),
    },
    ...(number === directoryInode ? {} : change),
  });
  const fileSystem = {
    inode,
    root: () => inode(directoryInode),
    async *entries() {
      for (const [name, number] of names) yield { name, inode: number };
    },
    async *content() {
      reads++;
      yield content;
    },
    target: async ({ sizeBytes }: Inode) => "t".repeat(sizeBytes),
  } as unknown as Ext4FileSystem;
  const read = (original: ReadonlyMap<string, RootEntry> = new Map()) => {
    const mounted = [{ fileSystem, at: "", isWritten: async () => true }];
    return readFileSystem({ mounted, first: new Map(), original }, signal);
  };
  return { read, reads: () => reads };
}

test("a file's content is read once, however many names it has", async () => {
  const names = ["a", "b", "c"];
  const root = flat([...names.map((name): [string, number] => [name, 11]), ["d", 12]]);
  const common = { type: "file", mode: 0o755, uid: 0, gid: 0, sizeBytes: content.length } as const;
  const original = new Map([...names, "d"].map((path) => [path, { ...common, path, sha256: "0" }]));
  const [, listing] = await root.read(original);
  expect(listing?.entries.map(({ sha256 }) => sha256)).toEqual(Array(4).fill(hash("sha256", content)));
  expect(root.reads()).toBe(2);
});

test("a directory without an end is an error as soon as it has more names than are compared", async () => {
  let given = 0;
  const endless = {
    *[Symbol.iterator](): Generator<[string, number]> {
      for (;;) yield [`f${given++}`, 11];
    },
  };
  await expect(flat(endless).read()).rejects.toMatchObject({ code: "Unsupported" });
  expect(given).toBe(driftLimits.entries + 1);
});

test("what links lead to counts as well", async () => {
  const sizeBytes = 4095;
  const count = Math.ceil(driftLimits.textBytes / sizeBytes) + 1;
  const names = Array.from({ length: count }, (_, index): [string, number] => [`l${index}`, 11]);
  const links = flat(names, { type: "symlink", sizeBytes });
  await expect(links.read()).rejects.toMatchObject({
    code: "Unsupported",
    message: expect.stringContaining("64 MiB"),
  });
});
