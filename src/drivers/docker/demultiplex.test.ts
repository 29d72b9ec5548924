import fc from "fast-check";
import { expect, test } from "vitest";
import { demultiplex, outputOf } from "./demultiplex.ts";

function frame(stream: number, bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([header, bytes]);
}

async function* inPieces(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (let turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

test("gives every byte to its stream, however the connection cuts the frames", async () => {
  const frames = fc.array(fc.tuple(fc.constantFrom(0, 1, 2), fc.uint8Array({ maxLength: 40 })), {
    maxLength: 20,
  });
  const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(frames, sizes, async (sent, pieces) => {
      const wire = Buffer.concat(sent.map(([stream, bytes]) => frame(stream, bytes)));
      const got: Record<"stdout" | "stderr", Buffer[]> = { stdout: [], stderr: [] };
      for await (const { stream, bytes } of demultiplex(inPieces(wire, pieces))) got[stream].push(bytes);
      const expected = (error: boolean) =>
        Buffer.concat(sent.filter(([stream]) => (stream === 2) === error).map(([, bytes]) => bytes));
      expect(Buffer.concat(got.stdout).equals(expected(false))).toBe(true);
      expect(Buffer.concat(got.stderr).equals(expected(true))).toBe(true);
    }),
  );
});

test("gives what came of a frame that was cut short", async () => {
  const wire = frame(1, Buffer.from("hello")).subarray(0, 10);
  const got: Buffer[] = [];
  for await (const { bytes } of demultiplex(inPieces(wire, [3]))) got.push(bytes);
  expect(Buffer.concat(got).toString()).toBe("he");
});

test("leaves the output of a terminal as it is", async () => {
  const got: Uint8Array[] = [];
  for await (const bytes of outputOf(inPieces(Buffer.from("plain"), [2]), true)) got.push(bytes);
  expect(Buffer.concat(got).toString()).toBe("plain");
});
