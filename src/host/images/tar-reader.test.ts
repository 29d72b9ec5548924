import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hasCode } from "../../core/errors.ts";
import { tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import { readTar, type TarEntry } from "./tar-reader.ts";
import { collect, inChunks, tarOf } from "./test-archives.ts";

type Read = Omit<TarEntry, "content" | "attributes"> & { text: string; attributes: Record<string, string> };

async function readAll(archive: Uint8Array, chunkBytes?: number): Promise<Read[]> {
  const entries: Read[] = [];
  for await (const { content, attributes, ...entry } of readTar(inChunks(archive, chunkBytes))) {
    const values = [...attributes].map(([name, value]) => [name, Buffer.from(value).toString("hex")]);
    const text = (await collect(content)).toString("latin1");
    entries.push({ ...entry, text, attributes: Object.fromEntries(values) });
  }
  return entries;
}

const common = { uid: 1, gid: 2, mtimeSeconds: 3, target: "", attributes: new Map<string, Uint8Array>() };

function withFlag(archive: Buffer, flag: string): Buffer {
  const changed = Buffer.from(archive);
  changed.write(flag, 156, "latin1");
  changed.fill(" ", 148, 156);
  const sum = changed.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  changed.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return changed;
}

describe("readTar", () => {
  it("reads what another implementation writes, whatever the chunks", async () => {
    const long = `${"d/".repeat(80)}name-${"x".repeat(120)}`;
    const archive = await tarOf([
      { name: "etc/", type: "directory", mode: 0o1777, uid: 5, gid: 6, mtime: new Date(1000) },
      { name: long, content: "hello", mode: 0o4755 },
      { name: "ünïcode", type: "symlink", linkname: `${"t".repeat(150)}` },
      { name: "hard", type: "link", linkname: long },
      { name: "null", type: "character-device", devmajor: 1, devminor: 3 },
      { name: "pipe", type: "fifo" },
    ]);
    for (const chunkBytes of [1, 7, 511, 512, 513, archive.length]) {
      const entries = await readAll(archive, chunkBytes);
      expect(entries.map(({ path, type }) => [path, type])).toEqual([
        ["etc/", "directory"],
        [long, "file"],
        ["ünïcode", "symlink"],
        ["hard", "hardlink"],
        ["null", "character"],
        ["pipe", "fifo"],
      ]);
      expect(entries[0]).toMatchObject({ mode: 0o1777, uid: 5, gid: 6, mtimeSeconds: 1, sizeBytes: 0 });
      expect(entries[1]).toMatchObject({ mode: 0o4755, sizeBytes: 5, text: "hello" });
      expect(entries[2]?.target).toBe("t".repeat(150));
      expect(entries[3]?.target).toBe(long);
    }
  });

  it("skips the content that nobody reads", async () => {
    const archive = await tarOf([
      { name: "a", content: "x".repeat(3000) },
      { name: "b", content: "y" },
    ]);
    const names: string[] = [];
    for await (const { path } of readTar(inChunks(archive, 100))) names.push(path);
    expect(names).toEqual(["a", "b"]);
  });

  it("returns what the writer wrote, byte for byte", async () => {
    const name = fc
      .string({ unit: "grapheme", minLength: 1, maxLength: 200 })
      .filter((text) => !/[/\0]/.test(text));
    const entry = fc.record({
      path: fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join("/")),
      mode: fc.nat(0o7777),
      content: fc.uint8Array({ maxLength: 1500 }),
      capability: fc.option(fc.uint8Array({ minLength: 1, maxLength: 24 })),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 2000 }),
        async (list, size) => {
          const parts = list.flatMap(({ path, mode, content, capability }) => [
            writeTarHeader({
              ...common,
              path,
              type: "file",
              mode,
              sizeBytes: content.length,
              attributes: new Map(capability ? [["security.capability", capability]] : []),
            }),
            Buffer.from(content),
            Buffer.alloc((512 - (content.length % 512)) % 512),
          ]);
          const read = await readAll(Buffer.concat([...parts, tarEnd]), size);
          expect(read).toEqual(
            list.map(({ path, mode, content, capability }) => ({
              path,
              type: "file",
              mode,
              uid: 1,
              gid: 2,
              mtimeSeconds: 3,
              target: "",
              sizeBytes: content.length,
              text: Buffer.from(content).toString("latin1"),
              attributes: capability
                ? { "security.capability": Buffer.from(capability).toString("hex") }
                : {},
            })),
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it("fails with Invalid, and nothing else, for an archive that is cut off or changed anywhere", async () => {
    const archive = await tarOf([
      { name: "a".repeat(150), content: "x".repeat(700) },
      { name: "b", type: "symlink", linkname: "ä" },
    ]);
    await fc.assert(
      fc.asyncProperty(fc.nat(archive.length - 1), fc.nat(255), fc.boolean(), async (at, value, cut) => {
        const damaged = cut ? archive.subarray(0, at) : Buffer.from(archive);
        if (!cut) damaged[at] = value;
        try {
          await readAll(damaged);
        } catch (error) {
          expect(hasCode(error, "Invalid")).toBe(true);
        }
        if (cut && at <= archive.length - 1024)
          await expect(readAll(damaged)).rejects.toMatchObject({ code: "Invalid" });
      }),
      { numRuns: 300 },
    );
  });

  const refusals: [string, Promise<Buffer> | Buffer, RegExp][] = [
    ["no archive", Buffer.from("#!/bin/sh\n".repeat(200)), /is not a tar archive/],
    ["nothing", Buffer.alloc(0), /is empty/],
    [
      "a file cut off",
      tarOf([{ name: "big", content: "x".repeat(5000) }]).then((tar) => tar.subarray(0, 2000)),
      /middle of "big"/,
    ],
    [
      "no end mark",
      tarOf([{ name: "a" }]).then((tar) => tar.subarray(0, 512)),
      /ends after "a" without an end mark/,
    ],
    [
      "a sparse file",
      tarOf([{ name: "s" }]).then((tar) => withFlag(tar, "S")),
      /"s" is stored as a sparse file/,
    ],
    [
      "an unknown type",
      tarOf([{ name: "v" }]).then((tar) => withFlag(tar, "V")),
      /"v" is of the unknown type "V"/,
    ],
  ];
  it.each(refusals)("refuses %s", async (_name, archive, message) => {
    await expect(readAll(await archive)).rejects.toThrow(message);
  });

  it("refuses names that are not UTF-8 and shows control characters", async () => {
    const archive = await tarOf([{ name: "ab" }]);
    archive[1] = 0xff;
    archive[0] = 0x1b;
    const sum = archive.reduce(
      (total, byte, at) => (at < 512 ? total + (at >= 148 && at < 156 ? 32 : byte) : total),
      0,
    );
    archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    await expect(readAll(archive)).rejects.toThrow(/"\\u001bÿ", which is not UTF-8/);
  });

  it("takes sizes in base 256 and from extended headers", async () => {
    const archive = await tarOf([{ name: "a", content: "x".repeat(10) }]);
    Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]).copy(archive, 124);
    const plain = withFlag(archive, "0");
    expect((await readAll(plain))[0]).toMatchObject({ sizeBytes: 10, text: "x".repeat(10) });
    const extended = await tarOf([{ name: "a", content: "x".repeat(10), pax: { size: "10", uid: "70000" } }]);
    expect((await readAll(extended))[0]).toMatchObject({ sizeBytes: 10, uid: 70000 });
  });
});
