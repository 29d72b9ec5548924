import { describe, expect, test } from "vitest";
import type { Json } from "../core/json.ts";
import { type Current, keysUnder, listAll, type MakeStore, put, useStore } from "./conformance-harness.ts";
import { listCases, pageCases, pastCases } from "./conformance-list.ts";
import { modelCases } from "./conformance-model.ts";
import { watchCases } from "./conformance-watch.ts";
import { storeLimits, type Write } from "./store.ts";

/**
 * What every store must do. An implementation's test calls this once; a case that passes on one implementation only
 * is a bug of the other, or a hole in the contract.
 */
export function storeConformance(name: string, makeStore: MakeStore): void {
  describe(`${name} is a store`, () => {
    const current = useStore(makeStore);
    describe("get and commit", () => commitCases(current));
    describe("isolation", () => isolationCases(current));
    describe("conditions", () => conditionCases(current));
    describe("limits", () => limitCases(current));
    describe("list", () => listCases(current));
    describe("the past", () => pastCases(current));
    describe("pages", () => pageCases(current));
    describe("compact", () => compactCases(current));
    describe("close", () => closeCases(current));
    describe("watch", () => watchCases(current));
    describe("against a model", () => modelCases(makeStore));
  });
}

function commitCases(current: Current): void {
  test("starts empty at revision 0", async () => {
    const { store } = current();
    expect(await store.revision()).toBe(0);
    expect(await store.get("a")).toBeUndefined();
    expect(await store.list("", { limit: 10 })).toEqual({ entries: [], revision: 0 });
  });

  test("gives back what was put, with the revision of its commit", async () => {
    const { store } = current();
    const value = { text: "ü😀\u0000\ud800", list: [1, 2.5, -1e-9, true, null, {}], nested: { "": [] } };
    const first = await store.commit([put("a", value), put("b", 0)]);
    const second = await store.commit([put("b", false)]);
    expect(await store.get("a")).toEqual({ key: "a", value, revision: first });
    expect(await store.get("b")).toEqual({ key: "b", value: false, revision: second });
    expect(await store.revision()).toBe(second);
  });

  test("revisions start at 1 or later and strictly increase, also for commits of one turn", async () => {
    const { store } = current();
    const revisions = await Promise.all(Array.from({ length: 50 }, (_, i) => store.commit([put(`k${i}`)])));
    expect(Math.min(...revisions)).toBeGreaterThanOrEqual(1);
    expect(new Set(revisions).size).toBe(50);
    const next = await store.commit([put("k")]);
    expect(next).toBeGreaterThan(Math.max(...revisions));
  });

  test("deletes; deleting what is absent is a commit of its own without effect", async () => {
    const { store } = current();
    await store.commit([put("a"), put("b")]);
    const deleted = await store.commit([{ delete: "a" }]);
    expect(await store.get("a")).toBeUndefined();
    expect(await keysUnder(store, "")).toEqual(["b"]);
    const again = await store.commit([{ delete: "a" }]);
    expect(again).toBeGreaterThan(deleted);
    expect(await store.revision()).toBe(again);
    await store.commit([put("a", 2, 0)]);
    expect((await store.get("a"))?.value).toBe(2);
  });
}

function isolationCases(current: Current): void {
  test("values are copies, on the way in and on the way out", async () => {
    const { store } = current();
    const value = { list: [1] };
    const committed = store.commit([put("a", value)]);
    value.list.push(2);
    await committed;
    for (const read of [
      async () => (await store.get("a"))?.value,
      async () => (await listAll(store, "")).entries[0]?.value,
    ]) {
      const seen = (await read()) as { list: number[] };
      expect(seen).toEqual({ list: [1] });
      seen.list.push(3);
    }
    expect((await store.get("a"))?.value).toEqual({ list: [1] });
  });

  test("counts correctly when many compare and commit at once", async () => {
    const { store } = current();
    const increment = async (): Promise<void> => {
      for (;;) {
        const entry = await store.get("count");
        try {
          await store.commit([put("count", Number(entry?.value ?? 0) + 1, entry?.revision ?? 0)]);
          return;
        } catch (error) {
          expect(error).toMatchObject({ code: "Conflict" });
        }
      }
    };
    await Promise.all(Array.from({ length: 20 }, increment));
    expect((await store.get("count"))?.value).toBe(20);
  });
}

function conditionCases(current: Current): void {
  test.each([
    ["put, expected absent", put("there", 1, 0)],
    ["put, expected at another revision", put("there", 1, 999)],
    ["put, expected present", put("missing", 1, 1)],
    ["delete, expected absent", { delete: "there", ifRevision: 0 }],
    ["delete, expected at another revision", { delete: "there", ifRevision: 999 }],
    ["delete, expected present", { delete: "missing", ifRevision: 1 }],
  ])("%s: Conflict names the key, and nothing of the commit happens", async (_, write) => {
    const { store } = current();
    const before = await store.commit([put("there", "old"), put("other", "old")]);
    const key = "put" in write ? write.put : write.delete;
    await expect(store.commit([put("other", "new"), write, put("new")])).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining(JSON.stringify(key)),
    });
    expect(await store.revision()).toBe(before);
    expect((await listAll(store, "")).entries).toEqual([
      { key: "other", value: "old", revision: before },
      { key: "there", value: "old", revision: before },
    ]);
  });

  test("conditions that hold let the commit through", async () => {
    const { store } = current();
    const created = await store.commit([put("a", 1, 0), { delete: "b", ifRevision: 0 }]);
    const updated = await store.commit([put("a", 2, created), put("c", 1, 0)]);
    await store.commit([
      { delete: "a", ifRevision: updated },
      { delete: "c", ifRevision: updated },
    ]);
    expect(await keysUnder(store, "")).toEqual([]);
  });

  test("a key deleted and put again has a new revision, so the old condition fails", async () => {
    const { store } = current();
    const first = await store.commit([put("a", 1)]);
    await store.commit([{ delete: "a" }]);
    await store.commit([put("a", 1)]);
    await expect(store.commit([put("a", 2, first)])).rejects.toMatchObject({ code: "Conflict" });
  });

  test("of commits of one turn with the same condition, exactly one succeeds", async () => {
    const { store } = current();
    const results = await Promise.allSettled(
      [0, 1, 2, 3, 4].map((i) => store.commit([put("a", i, 0), put(`b${i}`)])),
    );
    const winners = results.flatMap((result, i) => (result.status === "fulfilled" ? [i] : []));
    expect(winners).toHaveLength(1);
    expect((await store.get("a"))?.value).toBe(winners[0]);
    expect(await keysUnder(store, "b")).toEqual([`b${winners[0]}`]);
  });
}

function limitCases(current: Current): void {
  const key = "k".repeat(storeLimits.keyBytes);
  const wideKey = "é".repeat(storeLimits.keyBytes / 2);
  const text = "v".repeat(storeLimits.valueBytes - 2);
  const many = Array.from({ length: storeLimits.writesPerCommit }, (_, i) => put(`m${i}`));
  const cyclic: Json[] = [];
  cyclic.push(cyclic);

  test.each<[string, Write[]]>([
    ["as many writes as allowed", many],
    ["a key as long as allowed", [put(key)]],
    ["a key as long as allowed in UTF-8", [put(wideKey)]],
    ["a value as large as allowed", [put("a", text)]],
  ])("accepts %s", async (_, writes) => {
    const { store } = current();
    const revision = await store.commit(writes);
    const { entries } = await listAll(store, "");
    expect(entries).toHaveLength(writes.length);
    for (const write of writes) {
      if ("put" in write)
        expect(await store.get(write.put)).toEqual({ key: write.put, value: write.value, revision });
    }
  });

  test.each<[string, Write[]]>([
    ["no writes", []],
    ["too many writes", [...many, put("one more")]],
    ["a key named twice", [put("a"), put("b"), { delete: "a" }]],
    ["an empty key", [put("")]],
    ["a key too long", [put(`${key}k`)]],
    ["a key too long in UTF-8", [put(`${wideKey}é`)]],
    ["a key that is not well-formed", [put("a\ud800")]],
    ["a key with NUL", [put("a\u0000")]],
    ["a value too large", [put("a", `${text}v`)]],
    ["a value too large in UTF-8", [put("a", "é".repeat(storeLimits.valueBytes / 2))]],
    ["a value that is no JSON", [put("a", cyclic)]],
    ["a value that is undefined", [{ put: "a", value: undefined as unknown as Json }, put("b")]],
    ["a condition that is no revision", [put("a", 1, 0.5)]],
    ["a negative condition", [{ delete: "a", ifRevision: -1 }]],
  ])("refuses %s as Invalid, wholly", async (_, writes) => {
    const { store } = current();
    await expect(store.commit([...writes])).rejects.toMatchObject({ code: "Invalid" });
    expect(await store.list("", { limit: 10 })).toEqual({ entries: [], revision: 0 });
  });

  test.each([
    ["limit 0", "", { limit: 0 }],
    ["a fractional limit", "", { limit: 1.5 }],
    ["limit above the maximum", "", { limit: storeLimits.pageEntries + 1 }],
    ["a negative at", "", { limit: 1, at: -1 }],
    ["a fractional at", "", { limit: 1, at: 0.5 }],
    ["a malformed prefix", "\udfff", { limit: 1 }],
    ["a malformed after", "", { limit: 1, after: "\ud800" }],
  ])("list refuses %s as Invalid", async (_, prefix, page) => {
    await expect(current().store.list(prefix, page)).rejects.toMatchObject({ code: "Invalid" });
  });

  test("get refuses what can be no key", async () => {
    await expect(current().store.get("")).rejects.toMatchObject({ code: "Invalid" });
  });
}

function compactCases(current: Current): void {
  test("keeps current values and history since, forgets what is older", async () => {
    const { store } = current();
    const first = await store.commit([put("a", 1), put("gone"), put("still", 1)]);
    const second = await store.commit([put("a", 2), { delete: "gone" }]);
    const third = await store.commit([put("a", 3)]);
    const state = await Promise.all([second, third].map((at) => listAll(store, "", at)));
    await store.compact(second);
    await expect(store.list("", { limit: 10, at: first })).rejects.toMatchObject({ code: "Compacted" });
    expect(await Promise.all([second, third].map((at) => listAll(store, "", at)))).toEqual(state);
    expect(await store.get("still")).toEqual({ key: "still", value: 1, revision: first });
    expect(await store.revision()).toBe(third);
  });

  test("may be repeated, and an older revision brings nothing back", async () => {
    const { store } = current();
    await store.commit([put("a", 1)]);
    await store.compact(0);
    expect(await keysUnder(store, "", 0)).toEqual([]);
    const second = await store.commit([put("a", 2)]);
    await store.compact(second);
    await store.compact(second);
    await store.compact(1);
    await expect(store.list("", { limit: 10, at: second - 1 })).rejects.toMatchObject({ code: "Compacted" });
    expect(await keysUnder(store, "", second)).toEqual(["a"]);
  });

  test("refuses what is no revision, or not reached yet", async () => {
    const { store } = current();
    const revision = await store.commit([put("a")]);
    for (const before of [revision + 1, -1, 0.5, Number.NaN]) {
      await expect(store.compact(before)).rejects.toMatchObject({ code: "Invalid" });
    }
  });

  test("of a long history goes on beside reads and commits", async () => {
    const { store } = current();
    for (let i = 0; i < 20; i++) await store.commit(Array.from({ length: 64 }, (_, k) => put(`k${k}`, i)));
    const before = await store.revision();
    const [, revision] = await Promise.all([
      store.compact(before),
      store.commit([put("k0", "new")]),
      store.compact(before),
    ]);
    const { entries } = await listAll(store, "", before);
    expect(entries.map((entry) => entry.value)).toEqual(Array.from({ length: 64 }, () => 19));
    expect(await store.get("k0")).toEqual({ key: "k0", value: "new", revision });
  });
}

function closeCases(current: Current): void {
  test("may be repeated; afterwards everything is Unavailable", async () => {
    const { store } = current();
    await store.commit([put("a")]);
    await Promise.all([store.close(), store.close()]);
    await store.close();
    for (const call of [
      () => store.get("a"),
      () => store.list("", { limit: 1 }),
      () => store.commit([put("b")]),
      () => store.revision(),
      () => store.compact(0),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: "Unavailable" });
    }
  });

  test("waits for commits under way", async () => {
    const { store } = current();
    const commits = Array.from({ length: 10 }, (_, i) => store.commit([put(`k${i}`)]));
    await store.close();
    await expect(Promise.all(commits)).resolves.toHaveLength(10);
  });

  test("what was committed is there after reopening, history included", async ({ skip }) => {
    const underTest = current();
    const { store, reopen } = underTest;
    if (!reopen) return skip("this store does not outlive its process");
    const first = await store.commit([put("a", 1), put("b", 1)]);
    const second = await store.commit([put("a", 2), { delete: "b" }]);
    const last = await store.commit([{ delete: "none" }]);
    await store.compact(first);
    const again = await reopen.call(underTest);
    expect(await again.revision()).toBe(last);
    expect(await again.get("a")).toEqual({ key: "a", value: 2, revision: second });
    expect(await keysUnder(again, "", first)).toEqual(["a", "b"]);
    await expect(again.list("", { limit: 1, at: 0 })).rejects.toMatchObject({ code: "Compacted" });
    expect(await again.commit([put("c")])).toBeGreaterThan(last);
  });
}
