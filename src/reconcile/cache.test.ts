import { expect, test } from "vitest";
import { settle } from "../core/virtual-clock.ts";
import { Cache, CacheIndex, type Versioned } from "./cache.ts";

interface Thing extends Versioned {
  group?: string;
  wanted: number;
}

const thing = (uid: string, revision: number, wanted = 0, group?: string): Thing => ({
  metadata: { uid, revision },
  wanted,
  ...(group === undefined ? {} : { group }),
});

function bench() {
  const cache = new Cache<Thing>((next, previous) => next.wanted !== previous.wanted);
  const changes: string[] = [];
  const hints: string[] = [];
  cache.onChange((key, next, previous) => {
    changes.push(`${key} ${previous?.metadata.revision ?? "-"}>${next?.metadata.revision ?? "-"}`);
  });
  const abort = new AbortController();
  void (async () => {
    for await (const key of cache.watchKeys(abort.signal)) hints.push(key);
  })();
  return { cache, changes, hints, abort };
}

test("no key is given out before everything is known", async () => {
  const { cache, hints, abort } = bench();
  cache.put("a", thing("1", 1));
  await settle();
  expect(hints).toEqual([]);
  expect(cache.isSynced).toBe(false);
  cache.replaceAll([
    ["a", thing("1", 1)],
    ["b", thing("2", 2)],
  ]);
  await settle();
  expect(hints.sort()).toEqual(["a", "b"]);
  abort.abort();
});

test("an older revision is ignored, an irrelevant change is taken over without a hint", async () => {
  const { cache, changes, hints, abort } = bench();
  cache.replaceAll([["a", thing("1", 5)]]);
  await settle();
  hints.length = 0;
  cache.put("a", thing("1", 4, 9));
  cache.put("a", thing("1", 6));
  await settle();
  expect(hints).toEqual([]);
  cache.put("a", thing("1", 7, 1));
  await settle();
  expect(hints).toEqual(["a"]);
  expect(changes).toEqual(["a ->5", "a 5>6", "a 6>7"]);
  abort.abort();
});

test("what the owner wrote is seen at once, does not hint, and never brings back the dead", async () => {
  const { cache, hints, abort } = bench();
  cache.replaceAll([["a", thing("1", 1)]]);
  await settle();
  hints.length = 0;
  cache.learn("a", thing("1", 2, 7));
  expect(cache.get("a")?.wanted).toBe(7);
  cache.put("a", thing("1", 2, 7));
  await settle();
  expect(hints).toEqual([]);
  cache.delete("a");
  cache.learn("a", thing("1", 3));
  expect(cache.get("a")).toBeUndefined();
  cache.put("a", thing("2", 4));
  cache.learn("a", thing("1", 9));
  expect(cache.get("a")?.metadata.uid).toBe("2");
  abort.abort();
});

test("another uid under the same key is a death and a birth", () => {
  const { cache, changes } = bench();
  cache.put("a", thing("1", 5));
  cache.put("a", thing("2", 3));
  expect(changes).toEqual(["a ->5", "a 5>-", "a ->3"]);
  expect(cache.byUid("1")).toBeUndefined();
  expect(cache.byUid("2")).toBeDefined();
  cache.delete("a", "1");
  expect(cache.size).toBe(1);
});

test("a listing tells what is gone", () => {
  const { cache, changes } = bench();
  cache.put("a", thing("1", 1));
  cache.put("b", thing("2", 2));
  cache.replaceAll([["b", thing("2", 2)]]);
  expect(changes.at(-1)).toBe("a 1>-");
  expect([...cache.keys()]).toEqual(["b"]);
});

test("an index follows its resources from group to group", () => {
  const cache = new Cache<Thing>();
  const index = new CacheIndex(cache, (one) => one.group);
  cache.put("a", thing("1", 1, 0, "x"));
  cache.put("b", thing("2", 2, 0, "x"));
  cache.put("c", thing("3", 3));
  expect([...index.keysOf("x")]).toEqual(["a", "b"]);
  cache.put("a", thing("1", 4, 0, "y"));
  cache.delete("b");
  expect([...index.keysOf("x")]).toEqual([]);
  expect([...index.keysOf("y")]).toEqual(["a"]);
});
