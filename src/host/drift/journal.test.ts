import { expect, test } from "vitest";
import { journalLimits, readJournal, restoreBeginning } from "./journal.ts";

const blockBytes = 1024;
const magic = 0xc03b3998;

/** A block of the journal: the header, then 32-bit words. */
function block(type: number, sequence: number, words: number[] = []): Buffer {
  const bytes = Buffer.alloc(blockBytes);
  for (const [index, word] of [magic, type, sequence, ...words].entries())
    bytes.writeUInt32BE(word >>> 0, index * 4);
  return bytes;
}

/** With 64-bit numbers and checksums of version 3: a tag is number, flags, high half, checksum. */
const features = 1 | 2 | 16;
const superblock = (start: number, sequence: number, blocks: number, incompatible = features) =>
  block(4, 0, [blockBytes, blocks, 1, sequence, start, 0, 0, incompatible]);
const [escaped, sameUuid, last] = [1, 2, 8];
const descriptor = (sequence: number, ...tags: [number, number][]) =>
  block(
    1,
    sequence,
    tags.flatMap(([number, flags]) => [number, flags, 0, 0]),
  );
const commit = (sequence: number) => block(2, sequence);
const revoke = (sequence: number, ...numbers: number[]) =>
  block(5, sequence, [16 + numbers.length * 8, ...numbers.flatMap((number) => [0, number])]);
const filled = (letter: string) => Buffer.alloc(blockBytes, letter);

function read(bytes: Buffer, limits?: { bytes: number; numbers: number }) {
  const readBlock = async (at: number) => bytes.subarray(at * blockBytes, (at + 1) * blockBytes);
  return readJournal(readBlock, { blockBytes, sizeBytes: bytes.length }, limits);
}

/** The letter that each block's content is full of. */
async function replay(...blocks: Buffer[]): Promise<Record<number, string>> {
  const bytes = Buffer.concat(blocks);
  const letterAt = (at: number) => bytes.toString("latin1", at * blockBytes + 4, at * blockBytes + 5);
  return Object.fromEntries([...(await read(bytes))].map(([number, { at }]) => [number, letterAt(at)]));
}

test("a journal that is done with holds nothing", async () => {
  expect(await replay(superblock(0, 7, 3), filled("a"), filled("b"))).toEqual({});
});

test("what was committed counts, the later over the earlier; what was not is left out", async () => {
  const blocks = [
    ...[descriptor(7, [100, sameUuid], [200, sameUuid | last]), filled("a"), filled("b"), commit(7)],
    ...[descriptor(8, [100, sameUuid | last]), filled("c"), commit(8)],
    ...[descriptor(9, [300, sameUuid | last]), filled("d")],
  ];
  expect(await replay(superblock(1, 7, 12), ...blocks, filled("x"), filled("x"))).toEqual({
    100: "c",
    200: "b",
  });
});

test("the first tag is followed by a UUID", async () => {
  const first = Buffer.alloc(blockBytes);
  block(1, 7, [100, 0, 0, 0, 1, 2, 3, 4, 200, sameUuid | last, 0, 0]).copy(first);
  expect(await replay(superblock(1, 7, 5), first, filled("a"), filled("b"), commit(7))).toEqual({
    100: "a",
    200: "b",
  });
});

test("what was revoked later is not written; what was written again after that is", async () => {
  const blocks = [
    ...[descriptor(7, [100, sameUuid], [200, sameUuid | last]), filled("a"), filled("b"), commit(7)],
    ...[revoke(8, 100, 200), commit(8)],
    ...[descriptor(9, [200, sameUuid | last]), filled("c"), commit(9)],
  ];
  expect(await replay(superblock(1, 7, 10), ...blocks)).toEqual({ 200: "c" });
});

test("it goes on at its beginning, and what is older there ends it", async () => {
  const blocks = [
    filled("b"),
    commit(7),
    commit(3),
    descriptor(7, [100, sameUuid], [200, sameUuid | last]),
    filled("a"),
  ];
  expect(await replay(superblock(4, 7, 6), ...blocks)).toEqual({ 100: "a", 200: "b" });
});

test("a block that looked like the journal's own gets its beginning back", async () => {
  const content = filled("a").fill(0, 0, 4);
  const blocks = [descriptor(7, [100, escaped | sameUuid | last]), content, commit(7)];
  const found = await read(Buffer.concat([superblock(1, 7, 4), ...blocks]));
  expect(found.get(100)).toMatchObject({ at: 2, escaped: true });
  const restored = restoreBeginning(content);
  expect([restored.readUInt32BE(0), restored.toString("latin1", 4, 6)]).toEqual([magic, "aa"]);
});

test("tags without 64-bit numbers and checksums", async () => {
  const tags = Buffer.alloc(blockBytes);
  block(1, 7, [100, sameUuid, 200, sameUuid | last]).copy(tags);
  const found = await replay(superblock(1, 7, 5, 0), tags, filled("a"), filled("b"), commit(7));
  expect(found).toEqual({ 100: "a", 200: "b" });
});

test("a journal that leads around in circles ends", async () => {
  const endless = descriptor(7, [100, sameUuid], [100, sameUuid], [100, sameUuid]);
  expect(await replay(superblock(1, 7, 3), endless, endless)).toEqual({});
});

test.each([
  ["nothing", Buffer.alloc(2 * blockBytes), "Unavailable"],
  ["too short", superblock(1, 7, 9), "Unavailable"],
  ["a start outside", Buffer.concat([superblock(5, 7, 2), filled("a")]), "Unavailable"],
  ["fast commits", Buffer.concat([superblock(1, 7, 2, 32), filled("a")]), "Unsupported"],
  ["commits without order", Buffer.concat([superblock(1, 7, 2, 4), filled("a")]), "Unsupported"],
])("%s is refused", async (_what, bytes, code) => {
  await expect(read(bytes)).rejects.toMatchObject({ code });
});

test("the same blocks revoked again and again are remembered once; too many, or too much to read, is refused", async () => {
  const perBlock = 126;
  const numbers = Array.from({ length: perBlock }, (_, index) => 1000 + index);
  const same = Array.from({ length: 50 }, () => revoke(7, ...numbers));
  const repeated = Buffer.concat([superblock(1, 7, 52), ...same, commit(7)]);
  expect(await read(repeated, { ...journalLimits, numbers: perBlock })).toEqual(new Map());
  const others = revoke(7, ...numbers.map((number) => number + perBlock));
  const many = Buffer.concat([superblock(1, 7, 4), revoke(7, ...numbers), others, commit(7)]);
  expect(await read(many, { ...journalLimits, numbers: 2 * perBlock })).toEqual(new Map());
  const refused = { code: "Unsupported", message: expect.stringContaining("stop the instance") };
  await expect(read(many, { ...journalLimits, numbers: 2 * perBlock - 1 })).rejects.toMatchObject(refused);
  await expect(read(repeated, { ...journalLimits, bytes: 50 * blockBytes })).rejects.toMatchObject(refused);
});

test("a journal full of revocations, each of another block, ends with an error and not with the heap", async () => {
  let asked = 0;
  const blocks = 65_536;
  const readBlock = async (at: number) => {
    if (at === 0) return superblock(1, 7, blocks);
    asked++;
    return revoke(7, ...Array.from({ length: 126 }, (_, index) => at * 126 + index));
  };
  const sizes = { blockBytes, sizeBytes: blocks * blockBytes };
  await expect(readJournal(readBlock, sizes)).rejects.toMatchObject({ code: "Unsupported" });
  expect(asked).toBe(Math.floor(journalLimits.numbers / 126) + 1);
});
