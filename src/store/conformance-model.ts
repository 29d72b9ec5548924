import fc from "fast-check";
import { expect, test } from "vitest";
import { hasCode } from "../core/errors.ts";
import type { MakeStore } from "./conformance-harness.ts";
import type { Entry, Revision, Store, StoreEvent, Write } from "./store.ts";

/**
 * The store against a model that anyone can check by reading: a list of states, one a revision.
 *
 * Linearizability: operations run in rounds, those of a round at the same time. The revisions of the commits that
 * succeeded are their order; what read, or failed, must fit *some* state between the round's first and last.
 */
export function modelCases(makeStore: MakeStore): void {
  test("concurrent operations are linearizable, and history tells what happened", async () => {
    const property = fc.asyncProperty(fc.array(round, { minLength: 1, maxLength: 8 }), async (rounds) => {
      const underTest = await makeStore();
      try {
        const model = new Model();
        for (const operations of rounds) await runRound(underTest.store, model, operations);
        await checkHistory(underTest.store, model);
      } finally {
        await underTest.dispose();
      }
    });
    await fc.assert(property, { numRuns: 60 });
  }, 60_000);
}

type State = ReadonlyMap<string, Entry>;

class Model {
  /** By revision, from 0; revisions that no commit was given repeat the state before. */
  readonly states: State[] = [new Map()];
  readonly events: StoreEvent[] = [];
  oldest: Revision = 0;

  get latest(): Revision {
    return this.states.length - 1;
  }

  state(revision: Revision): State {
    return this.states[revision] ?? new Map();
  }

  apply(writes: readonly Write[], revision: Revision): void {
    expect(revision, "revisions strictly increase").toBeGreaterThan(this.latest);
    const before = this.state(this.latest);
    expect(conflicts(before, writes), "a commit that succeeded met its conditions").toEqual([]);
    while (this.latest < revision - 1) this.states.push(before);
    const state = new Map(before);
    for (const write of writes) {
      if ("put" in write) {
        state.set(write.put, { key: write.put, value: write.value, revision });
        this.events.push({ type: "put", key: write.put, value: write.value, revision });
      } else if (state.delete(write.delete)) {
        this.events.push({ type: "delete", key: write.delete, revision });
      }
    }
    this.states.push(state);
  }

  /** Byte order by way of the bytes. */
  list(revision: Revision, prefix: string): Entry[] {
    const entries = [...this.state(revision).values()].filter((entry) => entry.key.startsWith(prefix));
    return entries.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
  }
}

/** The keys of writes whose condition does not hold. */
function conflicts(state: State, writes: readonly Write[]): string[] {
  return writes.flatMap((write) => {
    const key = "put" in write ? write.put : write.delete;
    const holds = write.ifRevision === undefined || write.ifRevision === (state.get(key)?.revision ?? 0);
    return holds ? [] : [key];
  });
}

const keys = ["a", "a/", "a/b", "a0", "é", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{10ffff}"];
const key = fc.constantFrom(...keys);

/** A condition names the revision that the key had this many commits ago, so that many hold and many do not. */
interface PlannedWrite {
  key: string;
  value: number | undefined;
  condition: "none" | "absent" | "current" | "stale";
}

type Operation =
  | { type: "commit"; writes: PlannedWrite[] }
  | { type: "get"; key: string }
  | { type: "list"; prefix: string; limit: number; age: number }
  | { type: "compact"; age: number };

const plannedWrite: fc.Arbitrary<PlannedWrite> = fc.record({
  key,
  value: fc.option(fc.nat(), { nil: undefined }),
  condition: fc.constantFrom("none", "none", "absent", "current", "current", "stale"),
});

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("commit" as const),
      writes: fc.uniqueArray(plannedWrite, { minLength: 1, maxLength: 4, selector: (write) => write.key }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("get" as const), key }) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant("list" as const),
      prefix: fc.oneof(fc.constant(""), key),
      limit: fc.integer({ min: 1, max: 4 }),
      age: fc.nat(6),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("compact" as const), age: fc.nat(8) }) },
);

const round = fc.array(operation, { minLength: 1, maxLength: 5 });

/** What an operation saw, to be judged when the order of the round's commits is known. */
type Judge = (model: Model, first: Revision) => void;

async function runRound(store: Store, model: Model, operations: Operation[]): Promise<void> {
  const first = model.latest;
  const succeeded: { writes: Write[]; revision: Revision }[] = [];
  const judges = await Promise.all(
    operations.map((one) => {
      if (one.type === "commit") return runCommit(store, realWrites(model, one.writes), succeeded);
      if (one.type === "get") return runGet(store, one.key);
      if (one.type === "list")
        return runList(store, one.prefix, one.limit, Math.max(model.oldest, first - one.age));
      return runCompact(store, model, Math.max(0, first - one.age));
    }),
  );
  for (const { writes, revision } of succeeded.sort((a, b) => a.revision - b.revision))
    model.apply(writes, revision);
  for (const judge of judges) judge(model, first);
  expect(await store.revision()).toBe(model.latest);
}

function realWrites(model: Model, planned: PlannedWrite[]): Write[] {
  return planned.map(({ key: target, value, condition }) => {
    const current = model.state(model.latest).get(target)?.revision ?? 0;
    const ifRevision = { none: undefined, absent: 0, current, stale: Math.max(0, current - 1) }[condition];
    const write = value === undefined ? { delete: target } : { put: target, value };
    return ifRevision === undefined ? write : { ...write, ifRevision };
  });
}

async function runCommit(
  store: Store,
  writes: Write[],
  succeeded: { writes: Write[]; revision: Revision }[],
): Promise<Judge> {
  try {
    succeeded.push({ writes, revision: await store.commit(writes) });
    return () => {};
  } catch (error) {
    if (!hasCode(error, "Conflict")) throw error;
    return (model, first) => {
      const explained = model.states.slice(first).some((state) => {
        const [named] = conflicts(state, writes);
        return named !== undefined && error.message.includes(JSON.stringify(named));
      });
      expect(explained, `some state explains "${error.message}"`).toBe(true);
    };
  }
}

async function runGet(store: Store, target: string): Promise<Judge> {
  const entry = await store.get(target);
  return (model, first) => {
    expect(model.states.slice(first).map((state) => state.get(target))).toContainEqual(entry);
  };
}

/** The pages of one listing, while the rest of the round goes on between them. */
async function runList(store: Store, prefix: string, limit: number, at: Revision): Promise<Judge> {
  const entries: Entry[] = [];
  try {
    for (let after: string | undefined, more = true; more; ) {
      const page = await store.list(prefix, after === undefined ? { limit, at } : { limit, at, after });
      expect(page.revision).toBe(at);
      entries.push(...page.entries);
      after = page.next;
      more = after !== undefined;
    }
  } catch (error) {
    if (!hasCode(error, "Compacted")) throw error;
    return (model) => expect(at, "only what is compacted is refused").toBeLessThan(model.oldest);
  }
  return (model) => expect(entries).toEqual(model.list(at, prefix));
}

async function runCompact(store: Store, model: Model, before: Revision): Promise<Judge> {
  await store.compact(before);
  model.oldest = Math.max(model.oldest, before);
  return () => {};
}

/** Every state and every event since the last compaction, under several prefixes. */
async function checkHistory(store: Store, model: Model): Promise<void> {
  for (let at = model.oldest; at <= model.latest; at++) {
    const page = await store.list("", { limit: 1000, at });
    expect(page.entries).toEqual(model.list(at, ""));
  }
  for (const prefix of ["", "a", "\ud7ff"]) {
    const after = Math.max(0, model.oldest - 1);
    const expected = model.events.filter((event) => event.revision > after && event.key.startsWith(prefix));
    const abort = new AbortController();
    const seen: StoreEvent[] = [];
    if (expected.length > 0) {
      for await (const event of store.watch(prefix, after, abort.signal)) {
        seen.push(event);
        if (seen.length === expected.length) abort.abort();
      }
    }
    expect(seen).toEqual(expected);
  }
}
