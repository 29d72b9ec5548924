import fc from "fast-check";
import { expect, it } from "vitest";
import { MarkedStream } from "./marked-stream.ts";

const token = "strata-0f0f";

/** What comes out of a stream that is pushed in pieces of the given lengths. */
function decode(bytes: Buffer, lengths: readonly number[]) {
  const data: Buffer[] = [];
  const marks: { text: string; after: number }[] = [];
  const total = () => data.reduce((sum, each) => sum + each.length, 0);
  const stream = new MarkedStream(
    token,
    (chunk) => data.push(Buffer.from(chunk)),
    (text) => marks.push({ text, after: total() }),
  );
  let at = 0;
  for (const length of [...lengths, bytes.length]) {
    stream.push(bytes.subarray(at, at + length));
    at += length;
  }
  return { data: Buffer.concat(data), marks };
}

it("finds marks wherever the stream is cut, and passes on every other byte", () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    fc.integer({ min: 1, max: token.length - 1 }).map((length) => Buffer.from(token.slice(0, length))),
  );
  fc.assert(
    fc.property(fc.array(piece), fc.array(piece), fc.array(fc.nat(7)), (before, after, lengths) => {
      const [head, tail] = [Buffer.concat(before), Buffer.concat(after)];
      fc.pre(!Buffer.concat([head, tail]).includes(token));
      fc.pre(
        !Buffer.concat([head, Buffer.from(token)])
          .subarray(0, -1)
          .includes(token),
      );
      const bytes = Buffer.concat([
        Buffer.from(`${token} 42\n`),
        head,
        Buffer.from(`${token} 0\n`),
        tail,
        Buffer.from("\n"),
      ]);
      const { data, marks } = decode(bytes, lengths);
      expect(marks).toEqual([
        { text: "42", after: 0 },
        { text: "0", after: head.length },
      ]);
      expect(data.equals(Buffer.concat([head, tail, Buffer.from("\n")]))).toBe(true);
    }),
  );
});

it("does not hold back what cannot become a mark", () => {
  expect(decode(Buffer.from("prompt> "), []).data.toString()).toBe("prompt> ");
  expect(decode(Buffer.from("prompt> str"), []).data.toString()).toBe("prompt> ");
});

it("does not collect a mark without an end", () => {
  const endless = Buffer.from(`before ${token}${"x".repeat(10_000)}`);
  const { data, marks } = decode(
    endless,
    Array.from({ length: 100 }, () => 100),
  );
  expect(marks).toEqual([]);
  expect(data.length).toBe(endless.length);
});
