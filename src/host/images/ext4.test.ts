import { readFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { archiveFileSystems } from "./ext4-archive.ts";
import { Ext4FileSystem, hasExt4 } from "./ext4-file-system.ts";
import type { ReadAt } from "./partition-table.ts";
import { readTar } from "./tar-reader.ts";
import { collect } from "./test-archives.ts";

const fixture = (name: string) =>
  zstdDecompressSync(readFileSync(new URL(`./fixtures/${name}.img.zst`, import.meta.url)));
const readerOf =
  (image: Buffer): ReadAt =>
  async (offset, length) =>
    Buffer.from(image.subarray(offset, offset + length));

interface Found {
  type: string;
  mode: number;
  owner: string;
  target: string;
  capability: string;
  content: Buffer;
}

async function readImage(image: Buffer, maxBytes = Number.POSITIVE_INFINITY): Promise<Map<string, Found>> {
  const fileSystem = await Ext4FileSystem.open(readerOf(image));
  const found = new Map<string, Found>();
  let bytes = 0;
  for await (const entry of readTar(archiveFileSystems([{ fileSystem, at: "" }]))) {
    const { path, type, mode, uid, gid, target, attributes, sizeBytes } = entry;
    bytes += sizeBytes + 512;
    if (bytes > maxBytes) break;
    found.set(path, {
      type,
      mode,
      owner: `${uid}:${gid}`,
      target,
      capability: Buffer.from(attributes.get("security.capability") ?? []).toString("hex"),
      content: await collect(entry.content),
    });
  }
  return found;
}

describe.each(["ext4", "ext2"])("%s", (name) => {
  const image = fixture(name);

  it("is read as it was made", async () => {
    expect(await hasExt4(readerOf(image))).toBe(true);
    const found = await readImage(image);
    expect(found.size).toBe(419);
    expect(found.get(".")).toMatchObject({ type: "directory", mode: 0o755 });
    expect(found.get("etc/os-release")?.content.toString()).toBe('PRETTY_NAME="Fixture"\n');
    expect(found.get("owned")).toMatchObject({ owner: "1000:2000" });
    expect(found.get("short")).toMatchObject({ type: "symlink", target: "sbin/init" });
    expect(found.get("long")).toMatchObject({ type: "symlink", target: "x".repeat(200) });
    expect(found.get("pipe")).toMatchObject({ type: "fifo" });
    expect(found.get("var/empty")).toMatchObject({ type: "directory" });
    expect(found.get("usr/bin/ping")?.capability).toBe(`0100000280200000${"00".repeat(12)}`);
    const names = ["usr/bin/hard", "usr/bin/sudo"].map((path) => found.get(path));
    const [first, second] = names[0]?.type === "file" ? names : names.reverse();
    expect(first).toMatchObject({ type: "file", mode: 0o4755, content: Buffer.from("sudo") });
    expect(second).toMatchObject({
      type: "hardlink",
      target: expect.stringMatching(/^usr\/bin\/(sudo|hard)$/),
    });
    const numbers = Array.from({ length: 30_000 }, (_, index) => `${index + 1}\n`).join("");
    expect(found.get("numbers")?.content.toString() === numbers).toBe(true);
    const sparse = found.get("sparse")?.content;
    expect(sparse?.length).toBe(300_003);
    expect(sparse?.toString("latin1").replace(/\0+/, "|")).toBe("start|end");
    const many = [...found.keys()].filter((path) => path.startsWith("many/"));
    expect(many).toHaveLength(400);
  });

  it("gives an error of ours or other content when damaged anywhere, in bounded time", async () => {
    const superblock = fc.integer({ min: 1024, max: 2047 });
    const metadata = fc.integer({ min: 2048, max: 200_000 });
    const change = fc.tuple(fc.oneof(superblock, metadata), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 20 }), async (changes) => {
        const damaged = Buffer.from(image);
        for (const [at, value] of changes) damaged[at] = value;
        try {
          await readImage(damaged, 32 * 1024 ** 2);
        } catch (error) {
          expect(["Invalid", "Unsupported"]).toContain((error as { code?: string }).code);
        }
      }),
      { numRuns: 40 },
    );
  });

  it("gives an error when cut off", async () => {
    await expect(readImage(image.subarray(0, 300_000))).rejects.toMatchObject({ code: "Invalid" });
    await expect(readImage(image.subarray(0, 1500))).rejects.toMatchObject({ code: "Invalid" });
  });
});

it("says so when the file system was not unmounted or is of an unknown kind", async () => {
  const withFeature = (flag: number) => {
    const image = fixture("ext4");
    image.writeUInt32LE(image.readUInt32LE(1024 + 96) | flag, 1024 + 96);
    return readImage(image);
  };
  await expect(withFeature(0x4)).rejects.toThrow(/not cleanly unmounted/);
  await expect(withFeature(0x10000)).rejects.toThrow(/features that are not read \(0x10000\)/);
});

it("puts a separate /boot where it belongs", async () => {
  const open = async (name: string) => Ext4FileSystem.open(readerOf(fixture(name)));
  const paths: string[] = [];
  const mounted = [
    { fileSystem: await open("ext4"), at: "" },
    { fileSystem: await open("ext2"), at: "var/empty" },
  ];
  for await (const { path } of readTar(archiveFileSystems(mounted))) paths.push(path);
  expect(paths).toContain("var/empty/etc/os-release");
  expect(paths.filter((path) => path === "etc/os-release")).toHaveLength(1);
});
