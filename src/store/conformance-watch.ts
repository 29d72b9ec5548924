import { expect, test } from "vitest";
import { type Current, put } from "./conformance-harness.ts";
import { type Store, type StoreEvent, storeLimits, type Write } from "./store.ts";

/** The watch cases of storeConformance. Readers pull by hand, so that each case decides who is slow. */
export function watchCases(current: Current): void {
  deliveryCases(current);
  gapCases(current);
  resumeCases(current);
  endCases(current);
  lagCases(current);
  compactedCases(current);
}

function open(store: Store, prefix: string, after: number, signal = new AbortController().signal) {
  return store.watch(prefix, after, signal)[Symbol.asyncIterator]();
}

async function take(reader: AsyncIterator<StoreEvent>, count: number): Promise<StoreEvent[]> {
  const events: StoreEvent[] = [];
  while (events.length < count) {
    const { done, value } = await reader.next();
    if (done) throw new Error(`the watch ended after ${events.length} of ${count} events`);
    events.push(value);
  }
  return events;
}

/** Proves that the reader has nothing but what it took: the next event is one that is committed only now. */
async function expectNothingBefore(
  store: Store,
  reader: AsyncIterator<StoreEvent>,
  key: string,
): Promise<void> {
  const revision = await store.commit([put(key, "marker")]);
  expect(await take(reader, 1)).toEqual([{ type: "put", key, value: "marker", revision }]);
}

function manyPuts(prefix: string, count: number): Write[] {
  return Array.from({ length: count }, (_, i) => put(`${prefix}${i}`, i));
}

function deliveryCases(current: Current): void {
  test("gives what happened and what happens, in order, puts and deletes", async () => {
    const { store } = current();
    const first = await store.commit([put("b", 1), put("a", { x: 1 })]);
    const second = await store.commit([{ delete: "b" }, { delete: "none" }, put("a", 2)]);
    const reader = open(store, "", 0);
    const events = await take(reader, 4);
    const waiting = take(reader, 1);
    const third = await store.commit([put("c", null)]);
    expect([...events, ...(await waiting)]).toEqual([
      { type: "put", key: "b", value: 1, revision: first },
      { type: "put", key: "a", value: { x: 1 }, revision: first },
      { type: "delete", key: "b", revision: second },
      { type: "put", key: "a", value: 2, revision: second },
      { type: "put", key: "c", value: null, revision: third },
    ]);
    await expectNothingBefore(store, reader, "end");
  });

  test("gives only what is under the prefix", async () => {
    const { store } = current();
    const reader = open(store, "a/", 0);
    await store.commit([put("a"), put("a/"), put("a0"), put("a/1"), put("b/a/1")]);
    await store.commit([put("a0")]);
    await store.commit([{ delete: "a/1" }]);
    expect((await take(reader, 3)).map((event) => event.key)).toEqual(["a/", "a/1", "a/1"]);
    await expectNothingBefore(store, reader, "a/end");
  });

  test("gives every reader everything, in values of its own", async () => {
    const { store } = current();
    const readers = [open(store, "", 0), open(store, "k", 0), open(store, "k1", 0)];
    const taken = readers.map((reader, i) => take(reader, [20, 20, 11][i] ?? 0));
    for (let i = 0; i < 20; i++) await store.commit([put(`k${i}`, [i])]);
    const [all, same, some] = await Promise.all(taken);
    expect(all).toEqual(same);
    expect(some).toEqual(all?.filter((event) => event.key.startsWith("k1")));
    const [event] = all ?? [];
    if (event?.type === "put") (event.value as number[]).push(99);
    expect(same?.[0]).toMatchObject({ value: [0] });
    expect(await store.get("k0")).toMatchObject({ value: [0] });
  });
}

function gapCases(current: Current): void {
  test("leaves nothing out and repeats nothing when it starts amid commits", async () => {
    const { store } = current();
    const revisions: number[] = [];
    const writers = Array.from({ length: 4 }, async (_, w) => {
      for (let i = 0; i < 25; i++) revisions.push(await store.commit([put(`w${w}/x`, i), put(`w${w}/y`, i)]));
    });
    const readers = Array.from({ length: 10 }, async () => {
      const after = await store.revision();
      const reader = open(store, "w", after);
      const events = [];
      do events.push(...(await take(reader, 1)));
      while (!events.some((event) => event.key === "w-end"));
      return { after, seen: events.filter((event) => event.key !== "w-end").map((event) => event.revision) };
    });
    await Promise.all(writers);
    await store.commit([put("w-end")]);
    const twice = revisions.sort((a, b) => a - b).flatMap((revision) => [revision, revision]);
    for (const { after, seen } of await Promise.all(readers)) {
      expect(seen).toEqual(twice.filter((revision) => revision > after));
    }
  });

  test("finds rare events in a long history", async () => {
    const { store } = current();
    const expected: number[] = [];
    for (let i = 0; i < 60; i++) {
      if (i % 25 === 24) expected.push(await store.commit([put("rare", i)]));
      await store.commit(manyPuts("noise/", 64));
    }
    const reader = open(store, "rare", 0);
    expect((await take(reader, expected.length)).map((event) => event.revision)).toEqual(expected);
    await expectNothingBefore(store, reader, "rare/end");
  });
}

function resumeCases(current: Current): void {
  test("resumes after any revision with exactly the rest", async () => {
    const { store } = current();
    for (let i = 0; i < 5; i++) await store.commit([put("a", i), i % 2 ? { delete: "b" } : put("b", i)]);
    const latest = await store.revision();
    await store.commit([put("end")]);
    const collect = async (after: number) => {
      const reader = open(store, "", after);
      const events: StoreEvent[] = [];
      for (
        let [event] = await take(reader, 1);
        event && event.key !== "end";
        [event] = await take(reader, 1)
      ) {
        events.push(event);
      }
      return events;
    };
    const all = await collect(0);
    for (let after = 1; after <= latest; after++) {
      expect(await collect(after)).toEqual(all.filter((event) => event.revision > after));
    }
  });

  test("continues a listing without a gap", async () => {
    const { store } = current();
    await store.commit([put("a", 1), put("b", 1)]);
    const page = await store.list("", { limit: 1 });
    const change = await store.commit([put("a", 2)]);
    const reader = open(store, "", page.revision);
    expect(await take(reader, 1)).toEqual([{ type: "put", key: "a", value: 2, revision: change }]);
  });
}

function endCases(current: Current): void {
  /** A reader that has read everything and waits. */
  async function waitForMore(store: Store, signal?: AbortSignal): Promise<{ next: Promise<unknown> }> {
    const reader = open(store, "waiting", 0, signal);
    await expectNothingBefore(store, reader, "waiting");
    return { next: reader.next() };
  }

  test("abort ends a reader that waits, one with events unread, and one not begun", async () => {
    const { store } = current();
    await store.commit(manyPuts("k", 10));
    const abort = new AbortController();
    const unread = open(store, "", 0, abort.signal);
    await take(unread, 1);
    const notBegun = open(store, "", 0, abort.signal);
    const waiting = await waitForMore(store, abort.signal);
    abort.abort(new Error("the reason is not thrown"));
    for (const reader of [unread, notBegun])
      expect(await reader.next()).toEqual({ done: true, value: undefined });
    expect(await waiting.next).toEqual({ done: true, value: undefined });
    await store.commit([put("k")]);
    expect(await unread.next()).toEqual({ done: true, value: undefined });
  });

  test("breaking out of the loop ends only that watch", async () => {
    const { store } = current();
    await store.commit(manyPuts("k", 3));
    const other = open(store, "", 0);
    for await (const event of store.watch("", 0, new AbortController().signal)) {
      expect(event.key).toBe("k0");
      break;
    }
    expect(await take(other, 3)).toHaveLength(3);
    await expectNothingBefore(store, other, "end");
  });

  test("close ends open watches without an error; later ones are Unavailable", async () => {
    const { store } = current();
    await store.commit(manyPuts("k", 3));
    const unread = open(store, "", 0);
    await take(unread, 1);
    const waiting = await waitForMore(store);
    await store.close();
    expect(await waiting.next).toEqual({ done: true, value: undefined });
    expect(await unread.next()).toEqual({ done: true, value: undefined });
    await expect(open(store, "", 0).next()).rejects.toMatchObject({ code: "Unavailable" });
  });

  test("refuses what is no prefix or no revision", async () => {
    const { store } = current();
    for (const reader of [open(store, "\ud800", 0), open(store, "", -1), open(store, "", 0.5)]) {
      await expect(reader.next()).rejects.toMatchObject({ code: "Invalid" });
    }
  });
}

function lagCases(current: Current): void {
  const backlog = storeLimits.watchBacklogEvents;

  /** Commits this many events under "k", as fast as the store takes them: no reader may hold it up. */
  async function flood(store: Store, count: number): Promise<void> {
    const commits: Promise<number>[] = [];
    for (let left = count; left > 0; left -= 64)
      commits.push(store.commit(manyPuts("k", Math.min(left, 64))));
    await Promise.all(commits);
  }

  test("a reader that lags as far as allowed gets everything", async () => {
    const { store } = current();
    const reader = open(store, "k", 0);
    const first = take(reader, 1);
    await store.commit([put("k")]);
    await first;
    await flood(store, backlog);
    await store.commit([put("other")]);
    expect(await take(reader, backlog)).toHaveLength(backlog);
    await expectNothingBefore(store, reader, "k-end");
  });

  test("a reader that lags further is dropped with Compacted, and can start again", async () => {
    const { store } = current();
    await store.commit([...manyPuts("k", 50), put("other")]);
    const slow = open(store, "k", 0);
    const elsewhere = open(store, "other", 0);
    await Promise.all([take(slow, 50), take(elsewhere, 1)]);
    await flood(store, backlog + 1);
    await expect(slow.next()).rejects.toMatchObject({ code: "Compacted" });
    expect((await slow.next()).done).toBe(true);
    await expectNothingBefore(store, elsewhere, "other-end");
    await expectNothingBefore(store, open(store, "k", await store.revision()), "k-end");
  });

  test("history asked for is no lag: a reader may start further back than the limit", async () => {
    const { store } = current();
    await flood(store, backlog + 100);
    const reader = open(store, "k", 0);
    expect(await take(reader, backlog + 100)).toHaveLength(backlog + 100);
    await expectNothingBefore(store, reader, "k-end");
  });
}

function compactedCases(current: Current): void {
  test("history that is gone, or was never there, is Compacted", async () => {
    const { store } = current();
    for (let i = 0; i < 5; i++) await store.commit([put("a", i)]);
    const latest = await store.revision();
    await store.compact(latest - 1);
    for (const after of [0, latest - 3, latest + 1]) {
      await expect(open(store, "", after).next()).rejects.toMatchObject({ code: "Compacted" });
    }
    const reader = open(store, "", latest - 2);
    expect((await take(reader, 2)).map((event) => event.revision)).toEqual([latest - 1, latest]);
    await expectNothingBefore(store, reader, "end");
  });

  test("a reader with events unread that are then compacted is dropped", async () => {
    const { store } = current();
    const reader = open(store, "a", 0);
    const first = take(reader, 1);
    await store.commit([put("a", 0)]);
    await first;
    for (let i = 0; i < 300; i++) await store.commit([put("a", i)]);
    await store.compact(await store.revision());
    const drain = async () => {
      for (;;) await take(reader, 1);
    };
    await expect(drain()).rejects.toMatchObject({ code: "Compacted" });
  });

  test("a reader that has read everything outlives compaction, however quiet its prefix", async () => {
    const { store } = current();
    const busy = open(store, "a", 0);
    const quiet = open(store, "q", 0);
    const silent = open(store, "s", 0);
    const first = Promise.all([take(busy, 1), take(quiet, 1)]);
    const silence = take(silent, 1);
    await store.commit([put("a"), put("q")]);
    await first;
    for (let i = 0; i < 3; i++) {
      await expectNothingBefore(store, busy, "a");
      await store.commit([put("b")]);
      await store.compact(await store.revision());
    }
    await expectNothingBefore(store, quiet, "q-end");
    await store.commit([put("s")]);
    expect(await silence).toMatchObject([{ key: "s" }]);
  });
}
