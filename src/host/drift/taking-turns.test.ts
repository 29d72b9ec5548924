import { expect, test } from "vitest";
import { takingTurns } from "./taking-turns.ts";

test("others have their turn between reads that are answered at once, and an abort ends them", async () => {
  const ending = new AbortController();
  const read = takingTurns(async () => Buffer.alloc(1), ending.signal);
  setImmediate(() => ending.abort(new Error("the time is over")));
  const forever = async () => {
    for (let reads = 0; reads < 1_000_000; reads++) await read(0, 1);
  };
  await expect(forever()).rejects.toThrow("the time is over");
});
