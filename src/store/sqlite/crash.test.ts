import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { randomInt, seededRandom } from "../../core/random.ts";
import type { Revision, Store, StoreEvent } from "../store.ts";
import { crashWrites, writers } from "./crash-writer.ts";
import { openSqliteStore } from "./sqlite-store.ts";

const script = fileURLToPath(new URL("./crash-writer.ts", import.meta.url));

let directory = "";
let path = "";
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-crash-"));
  path = join(directory, "store.db");
});
afterEach(() => rmSync(directory, { recursive: true }));

/** What the writer said before it died, lines cut short left out. */
interface Testimony {
  acknowledged: { writer: number; count: number; revision: Revision }[];
  compacting: Revision;
  refused?: string;
}

/** Runs the writer and kills it with SIGKILL once it has acknowledged this many commits. */
function runAndKill(seed: number, acknowledgements: number): Promise<Testimony> {
  const testimony: Testimony = { acknowledged: [], compacting: 0 };
  const child = spawn(process.execPath, [script, path, String(seed)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => {
    const [word, ...rest] = line.split(" ");
    const [first = 0, second = 0, third = 0] = rest.map(Number);
    if (word === "ack") testimony.acknowledged.push({ writer: first, count: second, revision: third });
    if (word === "compacting") testimony.compacting = first;
    if (word === "refused") testimony.refused = rest.join(" ");
    if (testimony.acknowledged.length === acknowledgements) child.kill("SIGKILL");
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    lines.on("close", () => {
      if (child.exitCode !== null || child.signalCode !== null) resolve(testimony);
      else child.on("exit", () => resolve(testimony));
    });
  });
}

async function eventsAfter(store: Store, after: Revision): Promise<StoreEvent[]> {
  const abort = new AbortController();
  const events: StoreEvent[] = [];
  await store.commit([{ put: "end", value: null }]);
  for await (const event of store.watch("", after, abort.signal)) {
    if (event.key === "end" && event.revision === (await store.revision())) break;
    events.push(event);
  }
  return events;
}

function countOf(event: StoreEvent | undefined): number | undefined {
  return event?.type === "put" && event.key !== "end" ? (event.value as { count: number }).count : undefined;
}

/** The latest acknowledged count of each writer, or the one commit after it that was under way. */
async function checkValues(store: Store, counts: number[]): Promise<void> {
  for (let writer = 0; writer < writers; writer++) {
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((name) => store.get(`w/${writer}/${name}`)));
    const count = (b?.value as { count: number } | undefined)?.count ?? 0;
    expect([counts[writer], (counts[writer] ?? 0) + 1]).toContain(count);
    counts[writer] = count;
    if (count === 0) continue;
    expect(a).toMatchObject({ value: { count }, revision: b?.revision });
    if (count % 3 === 0) expect(c).toBeUndefined();
    else expect(c).toMatchObject({ value: { count }, revision: b?.revision });
  }
}

/** Every commit in the history is whole, and every acknowledged one is there under its revision. */
function checkEvents(events: StoreEvent[], testimony: Testimony, oldest: Revision): void {
  const commits = Map.groupBy(events, (event) => event.revision);
  for (const [revision, commit] of commits) {
    const [first] = commit;
    if (first?.key === "end") continue;
    const writer = Number(first?.key.split("/")[1]);
    const count = countOf(first) ?? 0;
    const expected = crashWrites(writer, count, 0).map((write) =>
      "put" in write ? write.put : write.delete,
    );
    expect(
      commit.map((event) => event.key),
      `the commit ${revision} is whole`,
    ).toEqual(expected);
    expect(commit.map(countOf)).toEqual(count % 3 === 0 ? [count, count, undefined] : [count, count, count]);
  }
  for (const { writer, count, revision } of testimony.acknowledged) {
    if (revision < oldest) continue;
    expect(commits.get(revision)?.[0]).toMatchObject({ key: `w/${writer}/a`, value: { count } });
  }
}

test.each([1, 2, 3])(
  "after kill -9 every acknowledged commit is there, and none is torn (seed %i)",
  async (seed) => {
    const random = seededRandom(seed);
    const counts = Array.from({ length: writers }, () => 0);
    let oldest = 0;
    for (let round = 0; round < 4; round++) {
      const testimony = await runAndKill(seed * 100 + round, 1 + randomInt(random, 700));
      expect(testimony.refused).toBeUndefined();
      for (const { writer, count } of testimony.acknowledged)
        counts[writer] = Math.max(counts[writer] ?? 0, count);
      oldest = Math.max(oldest, testimony.compacting);
      const store = openSqliteStore({ path });
      await checkValues(store, counts);
      const revisions = testimony.acknowledged.map((commit) => commit.revision);
      expect(new Set(revisions).size).toBe(revisions.length);
      expect(await store.revision()).toBeGreaterThanOrEqual(Math.max(...revisions));
      checkEvents(await eventsAfter(store, Math.max(0, oldest - 1)), testimony, oldest);
      await store.close();
    }
  },
  60_000,
);

test("a second process is refused while the first has the store", async () => {
  const store = openSqliteStore({ path });
  await store.commit([{ put: "a", value: 1 }]);
  const { refused } = await runAndKill(1, 1);
  expect(refused).toContain("Unavailable");
  expect(refused).toContain(path);
  expect(await store.commit([{ put: "a", value: 2 }])).toBeGreaterThan(0);
  await store.close();
  expect((await runAndKill(1, 1)).acknowledged.length).toBeGreaterThan(0);
});
