import { writeSync } from "node:fs";
import { describeError } from "../../core/errors.ts";
import { randomInt, seededRandom } from "../../core/random.ts";
import type { Store, Write } from "../store.ts";
import { openSqliteStore } from "./sqlite-store.ts";

/**
 * The process that the crash test kills: `crash-writer.ts PATH SEED`. Four writers count upwards, each commit in
 * three keys that must agree, and a fifth task compacts. Every acknowledgement is a line on standard output, written
 * before anything else happens: `ack WRITER COUNT REVISION`, and `compacting REVISION` before it is tried. When the
 * store cannot be opened: `refused ERROR`.
 */
export const writers = 4;

/** The commit number `count` of a writer; every third deletes what the one before wrote. */
export function crashWrites(writer: number, count: number, padding: number): Write[] {
  const third = `w/${writer}/c`;
  return [
    { put: `w/${writer}/a`, value: { count, padding: "x".repeat(padding) } },
    { put: `w/${writer}/b`, value: { count } },
    count % 3 === 0 ? { delete: third } : { put: third, value: { count } },
  ];
}

async function write(store: Store, writer: number, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const entry = await store.get(`w/${writer}/b`);
  let count = entry ? (entry.value as { count: number }).count : 0;
  for (;;) {
    count++;
    const padding = randomInt(random, 10) === 0 ? randomInt(random, 60_000) : randomInt(random, 2_000);
    const revision = await store.commit(crashWrites(writer, count, padding));
    say(`ack ${writer} ${count} ${revision}`);
  }
}

async function compact(store: Store): Promise<void> {
  const abort = new AbortController();
  let seen = 0;
  for await (const event of store.watch("w/0/", await store.revision(), abort.signal)) {
    if (++seen % 100 !== 0) continue;
    const before = Math.max(1, event.revision - 40);
    say(`compacting ${before}`);
    await store.compact(before);
  }
}

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

if (import.meta.main) {
  const [path = "", seed = "0"] = process.argv.slice(2);
  try {
    const store = openSqliteStore({ path });
    const tasks = Array.from({ length: writers }, (_, writer) => write(store, writer, Number(seed) + writer));
    await Promise.all([...tasks, compact(store)]);
  } catch (error) {
    say(`refused ${describeError(error)}`);
    process.exitCode = 1;
  }
}
