import { expect, test } from "vitest";
import { type Current, keysUnder, listAll, put } from "./conformance-harness.ts";
import { storeLimits } from "./store.ts";

export function listCases(current: Current): void {
  test("orders keys by their UTF-8 bytes", async () => {
    const { store } = current();
    const keys = [
      "a",
      "a!",
      "a/",
      "a/b",
      "a0",
      "aa",
      "b",
      "\u007f",
      "é",
      "\ud7ff",
      "\ue000",
      "\uffff",
      "\u{10000}",
      "😀",
    ];
    await store.commit([...keys].reverse().map((key) => put(key)));
    expect(await keysUnder(store, "")).toEqual(
      [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    );
    expect(await keysUnder(store, "")).toEqual(keys);
  });

  test.each([
    ["", ["a", "a/", "a/1", "a/2", "a0", "b", "\ud7ff", "\ud7ffx", "\ue000", "\u{10ffff}", "\u{10ffff}x"]],
    ["a", ["a", "a/", "a/1", "a/2", "a0"]],
    ["a/", ["a/", "a/1", "a/2"]],
    ["a/1", ["a/1"]],
    ["a/11", []],
    ["A", []],
    ["c", []],
    ["\ud7ff", ["\ud7ff", "\ud7ffx"]],
    ["\u{10ffff}", ["\u{10ffff}", "\u{10ffff}x"]],
    ["\u{10ffff}\u{10ffff}", []],
  ])("prefix %j gives %j", async (prefix, expected) => {
    const { store } = current();
    const keys = [
      "a",
      "a/",
      "a/1",
      "a/2",
      "a0",
      "b",
      "\ud7ff",
      "\ud7ffx",
      "\ue000",
      "\u{10ffff}",
      "\u{10ffff}x",
    ];
    const revision = await store.commit(keys.map((key) => put(key)));
    expect(await keysUnder(store, prefix)).toEqual(expected);
    await store.commit(keys.map((key) => ({ delete: key })));
    expect(await keysUnder(store, prefix)).toEqual([]);
    expect(await keysUnder(store, prefix, revision)).toEqual(expected);
  });
}

export function pastCases(current: Current): void {
  test("shows the state as of any revision", async () => {
    const { store } = current();
    const first = await store.commit([put("a", 1), put("b", 1)]);
    const second = await store.commit([put("a", 2), { delete: "b" }, put("c", 2)]);
    const third = await store.commit([{ delete: "a" }, put("b", 3)]);
    const fourth = await store.commit([put("z", 4), { delete: "none" }]);
    const at = async (revision: number) => (await listAll(store, "", revision)).entries;
    expect(await at(0)).toEqual([]);
    expect(await at(first)).toEqual([
      { key: "a", value: 1, revision: first },
      { key: "b", value: 1, revision: first },
    ]);
    expect(await at(second)).toEqual([
      { key: "a", value: 2, revision: second },
      { key: "c", value: 2, revision: second },
    ]);
    expect(await at(third)).toEqual([
      { key: "b", value: 3, revision: third },
      { key: "c", value: 2, revision: second },
    ]);
    expect(await at(fourth)).toEqual([...(await at(third)), { key: "z", value: 4, revision: fourth }]);
    expect((await store.list("", { limit: 1, at: second })).revision).toBe(second);
  });

  test("a revision not reached yet is Compacted: the reader must list again", async () => {
    const { store } = current();
    const revision = await store.commit([put("a")]);
    await expect(store.list("", { limit: 1, at: revision + 1 })).rejects.toMatchObject({ code: "Compacted" });
  });
}

export function pageCases(current: Current): void {
  test("pages hold at most the limit and show one state while others write", async () => {
    const { store } = current();
    const keys = Array.from({ length: 10 }, (_, i) => `k${i}`);
    const revision = await store.commit(keys.map((key) => put(key, "old")));
    let page = await store.list("k", { limit: 3 });
    const seen = [...page.entries];
    for (let round = 0; page.next !== undefined; round++) {
      expect(page.entries).toHaveLength(3);
      await store.commit([
        put("k1", round),
        put(`k${round}x`, round),
        { delete: `k${8 - round}` },
        put("other"),
      ]);
      page = await store.list("k", { limit: 3, after: page.next, at: page.revision });
      expect(page.revision).toBe(revision);
      seen.push(...page.entries);
    }
    expect(seen).toEqual(keys.map((key) => ({ key, value: "old", revision })));
  });

  test("the last page has no next, also when it is full", async () => {
    const { store } = current();
    await store.commit([put("a"), put("b"), put("c"), put("d")]);
    const first = await store.list("", { limit: 2 });
    expect(first.next).toBe("b");
    const second = await store.list("", { limit: 2, after: "b", at: first.revision });
    expect(second.entries.map((entry) => entry.key)).toEqual(["c", "d"]);
    expect(second).not.toHaveProperty("next");
  });

  test.each([
    ["a key that does not exist", "x/b0", ["c", "d"]],
    ["a key before the prefix's range", "w", ["a", "b", "c", "d"]],
    ["a key behind the prefix's range", "y", []],
    ["the last key", "x/d", []],
    ["the prefix itself", "x/", ["a", "b", "c", "d"]],
    ["empty", "", ["a", "b", "c", "d"]],
  ])("after may be %s", async (_, after, expected) => {
    const { store } = current();
    await store.commit(["wx", "x", "x/a", "x/b", "x/c", "x/d", "x0"].map((key) => put(key)));
    const { entries } = await store.list("x/", { limit: 10, after });
    expect(entries.map((entry) => entry.key)).toEqual(expected.map((key) => `x/${key}`));
  });

  test("a page of large values ends early and goes on with next", async () => {
    const { store } = current();
    const text = "v".repeat(storeLimits.valueBytes - 2);
    for (let i = 0; i < 8; i++) await store.commit([put(`k${i}`, text)]);
    const page = await store.list("", { limit: 100 });
    expect(page.entries.length).toBeLessThan(8);
    expect(page.entries.length * storeLimits.valueBytes).toBeLessThanOrEqual(
      storeLimits.pageBytes + storeLimits.valueBytes,
    );
    expect(page.next).toBe(page.entries.at(-1)?.key);
    expect(await keysUnder(store, "")).toHaveLength(8);
  });
}
