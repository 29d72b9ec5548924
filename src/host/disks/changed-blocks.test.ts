import { expect, test } from "vitest";
import { parseChanges } from "./changed-blocks.ts";

const lines = (...said: string[]) =>
  (async function* () {
    yield* said;
  })();

test("what was written is told by device", async () => {
  const changed = await parseChanges(lines("7:0 0 2", "7:0 9 1", "7:12 4 1", "done", "7:0 1 1"));
  expect([...(changed ?? [])]).toEqual([
    [
      "7:0",
      [
        { first: 0, count: 2 },
        { first: 9, count: 1 },
      ],
    ],
    ["7:12", [{ first: 4, count: 1 }]],
  ]);
  expect([...((await parseChanges(lines("done"))) ?? [1])]).toEqual([]);
});

test.each([[["lost"]], [["7:0 0 2"]], [["7:0 0 2", "Permission denied", "done"]], [[]]])(
  "nobody knows all of it after %j",
  async (said) => {
    expect(await parseChanges(lines(...said))).toBeUndefined();
  },
);
