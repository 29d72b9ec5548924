import { expect, test } from "vitest";
import { parseChanges } from "./changed-blocks.ts";

const lines = (...said: readonly string[]) => linesOf(said);

async function* linesOf(said: readonly string[]) {
  yield* said;
}

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

test("what was written everywhere takes no longer a line than what was written in one place", async () => {
  const count = 100_000;
  const scattered = Array.from({ length: count }, (_, index) => `7:0 ${2 * index} 1`);
  const changed = await parseChanges(linesOf([...scattered, "done"]));
  expect(changed?.get("7:0")).toHaveLength(count);
});

test.each([[["lost"]], [["7:0 0 2"]], [["7:0 0 2", "Permission denied", "done"]], [[]]])(
  "nobody knows all of it after %j",
  async (said) => {
    expect(await parseChanges(lines(...said))).toBeUndefined();
  },
);
