import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { useWhole } from "./use-whole.ts";

const stream = () => Readable.from([Buffer.from("abc"), Buffer.from("de"), Buffer.from("f")]);
async function all(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test("all of it is used, and what is left is read", async () => {
  const read: number[] = [];
  expect(await useWhole(stream(), 6, all, (bytes) => read.push(bytes))).toBe("abcdef");
  expect(read).toEqual([3, 5, 6]);
  const first = async (bytes: AsyncIterable<Uint8Array>) => {
    for await (const chunk of bytes) return Buffer.from(chunk).toString();
    return "";
  };
  expect(await useWhole(stream(), 6, first, () => {})).toBe("abc");
});

test("what ends early is never taken for all of it", async () => {
  let ended = false;
  const use = async (bytes: AsyncIterable<Uint8Array>) => {
    await all(bytes);
    ended = true;
  };
  await expect(useWhole(stream(), 7, use, () => {})).rejects.toMatchObject({ code: "Internal" });
  expect(ended).toBe(false);
  await expect(
    useWhole(
      stream(),
      5,
      async () => {},
      () => {},
    ),
  ).rejects.toMatchObject({ code: "Internal" });
});
