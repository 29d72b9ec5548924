import { expect, test } from "vitest";
import { randomInt, seededRandom } from "../../core/random.ts";
import { compareKeys } from "../keys.ts";
import { SortedKeys } from "./sorted-keys.ts";

test("has the keys of a plain sorted list, from wherever it is read", () => {
  const random = seededRandom(7);
  const keys = new SortedKeys();
  const plain = new Set<string>();
  const draw = () =>
    `/k/${randomInt(random, 100_000).toString(36)}${randomInt(random, 9) === 0 ? "\u{1f600}" : ""}`;
  const compare = () => {
    const sorted = [...plain].sort(compareKeys);
    expect([...keys.from("")]).toEqual(sorted);
    for (let i = 0; i < 20; i++) {
      const from = draw();
      expect([...keys.from(from)]).toEqual(sorted.filter((key) => compareKeys(key, from) >= 0));
    }
  };
  compare();
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 1_500; i++) {
      const key = draw();
      if (!plain.has(key)) keys.add(key);
      plain.add(key);
    }
    compare();
    const isKept = (key: string) => key.length % 2 === round % 2;
    keys.keep(isKept);
    for (const key of plain) if (!isKept(key)) plain.delete(key);
    compare();
  }
  keys.keep(() => false);
  expect([...keys.from("")]).toEqual([]);
  keys.add("/a");
  expect([...keys.from("")]).toEqual(["/a"]);
});
