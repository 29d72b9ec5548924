import { readFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";
import { expect, test } from "vitest";
import type { Ext4FileSystem, Inode } from "../images/ext4-file-system.ts";
import { type Opened, openUnclean } from "./open-unclean.ts";

/** Of mke2fs and debugfs: see make-fixtures.sh. */
const image = zstdDecompressSync(readFileSync(new URL("./fixtures/replay.img.zst", import.meta.url)));
const open = (disk = image) =>
  openUnclean(async (offset, length) => Buffer.from(disk.subarray(offset, offset + length)));

async function inEtc(fileSystem: Ext4FileSystem, name: string): Promise<Inode> {
  const etc = await fileSystem.find(await fileSystem.root(), "etc");
  const inode = etc && (await fileSystem.find(etc, name));
  if (!inode) throw new Error(`there is no /etc/${name}`);
  return inode;
}

async function contentOf({ fileSystem }: Opened, name: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of fileSystem.content(await inEtc(fileSystem, name))) parts.push(chunk);
  return Buffer.concat(parts);
}

test("what is in the journal is read in its place, also what looks like the journal's own", async () => {
  const opened = await open();
  expect((await contentOf(opened, "big")).toString()).toBe(
    "a".repeat(1024) + "N".repeat(1024) + "b".repeat(1024),
  );
  const motd = await contentOf(opened, "motd");
  expect([motd.toString("hex", 0, 4), motd.toString("latin1", 4)]).toEqual(["c03b3998", "MM"]);
});

test("it is known what comes from the journal", async () => {
  const { fileSystem, isReplayed } = await open();
  const ranges: { offset: number; length: number }[] = [];
  for await (const range of fileSystem.ranges(await inEtc(fileSystem, "big"))) ranges.push(range);
  const [{ offset, length } = { offset: 0, length: 0 }] = ranges;
  expect([ranges.length, length]).toEqual([1, 3072]);
  const blocks = [0, 1, 2].map((block) => isReplayed(offset + block * 1024, 1024));
  expect([...blocks, isReplayed(offset, length)]).toEqual([false, true, false, true]);
});

test("a journal with holes, or of an absurd size, is refused", async () => {
  const journalSize = (sizeBytes: bigint) => {
    const disk = Buffer.from(image);
    const table = disk.readUInt32LE(2 * 1024 + 8) * 1024;
    const inode = table + 7 * 256;
    disk.writeUInt32LE(Number(sizeBytes & 0xffffffffn), inode + 4);
    disk.writeUInt32LE(Number(sizeBytes >> 32n), inode + 108);
    return open(disk);
  };
  expect((await journalSize(2n ** 20n)).fileSystem.journal).toBe(8);
  await expect(journalSize(2n ** 21n)).rejects.toMatchObject({ code: "Unavailable" });
  await expect(journalSize(2n ** 30n + 1n)).rejects.toMatchObject({ code: "Unsupported" });
});
