import { expect, test } from "vitest";
import { replayJournal } from "./journal.ts";

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

function replay(...blocks: Buffer[]): Record<number, string> {
  const found = replayJournal(Buffer.concat(blocks), blockBytes);
  return Object.fromEntries(
    [...found].map(([number, content]) => [number, content.toString("latin1", 4, 5)]),
  );
}

test("a journal that is done with holds nothing", () => {
  expect(replay(superblock(0, 7, 3), filled("a"), filled("b"))).toEqual({});
});

test("what was committed counts, the later over the earlier; what was not is left out", () => {
  const blocks = [
    ...[descriptor(7, [100, sameUuid], [200, sameUuid | last]), filled("a"), filled("b"), commit(7)],
    ...[descriptor(8, [100, sameUuid | last]), filled("c"), commit(8)],
    ...[descriptor(9, [300, sameUuid | last]), filled("d")],
  ];
  expect(replay(superblock(1, 7, 12), ...blocks, filled("x"), filled("x"))).toEqual({ 100: "c", 200: "b" });
});

test("the first tag is followed by a UUID", () => {
  const first = Buffer.alloc(blockBytes);
  block(1, 7, [100, 0, 0, 0, 1, 2, 3, 4, 200, sameUuid | last, 0, 0]).copy(first);
  expect(replay(superblock(1, 7, 5), first, filled("a"), filled("b"), commit(7))).toEqual({
    100: "a",
    200: "b",
  });
});

test("what was revoked later is not written; what was written again after that is", () => {
  const blocks = [
    ...[descriptor(7, [100, sameUuid], [200, sameUuid | last]), filled("a"), filled("b"), commit(7)],
    ...[revoke(8, 100, 200), commit(8)],
    ...[descriptor(9, [200, sameUuid | last]), filled("c"), commit(9)],
  ];
  expect(replay(superblock(1, 7, 10), ...blocks)).toEqual({ 200: "c" });
});

test("it goes on at its beginning, and what is older there ends it", () => {
  const blocks = [
    filled("b"),
    commit(7),
    commit(3),
    descriptor(7, [100, sameUuid], [200, sameUuid | last]),
    filled("a"),
  ];
  expect(replay(superblock(4, 7, 6), ...blocks)).toEqual({ 100: "a", 200: "b" });
});

test("a block that looked like the journal's own gets its beginning back", () => {
  const content = filled("a").fill(0, 0, 4);
  const blocks = [descriptor(7, [100, escaped | sameUuid | last]), content, commit(7)];
  const found = replayJournal(Buffer.concat([superblock(1, 7, 4), ...blocks]), blockBytes);
  expect(found.get(100)?.readUInt32BE(0)).toBe(magic);
});

test("tags without 64-bit numbers and checksums", () => {
  const tags = Buffer.alloc(blockBytes);
  block(1, 7, [100, sameUuid, 200, sameUuid | last]).copy(tags);
  const found = replay(superblock(1, 7, 5, 0), tags, filled("a"), filled("b"), commit(7));
  expect(found).toEqual({ 100: "a", 200: "b" });
});

test("a journal that leads around in circles ends", () => {
  const endless = descriptor(7, [100, sameUuid], [100, sameUuid], [100, sameUuid]);
  expect(replay(superblock(1, 7, 3), endless, endless)).toEqual({});
});

test.each([
  ["nothing", Buffer.alloc(2 * blockBytes), "Unavailable"],
  ["too short", superblock(1, 7, 9), "Unavailable"],
  ["a start outside", Buffer.concat([superblock(5, 7, 2), filled("a")]), "Unavailable"],
  ["fast commits", Buffer.concat([superblock(1, 7, 2, 32), filled("a")]), "Unsupported"],
  ["commits without order", Buffer.concat([superblock(1, 7, 2, 4), filled("a")]), "Unsupported"],
])("%s is refused", (_what, bytes, code) => {
  expect(() => replayJournal(bytes, blockBytes)).toThrow(expect.objectContaining({ code }));
});
