/**
 * Snapshots of several disks at once, for real: frozen together, copied beside a writer, put back, and all of it with
 * kill -9 at seeded moments. STRATA_SEED repeats a failure, STRATA_DISK_KILLS says how many.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { Disks } from "../src/host/disks/disks.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";

const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const kills = Number(process.env.STRATA_DISK_KILLS ?? 20);
const seed = Number(process.env.STRATA_SEED ?? 20261128);
const child = fileURLToPath(new URL("disk-parts-child.ts", import.meta.url));
const both = ["one", "two"];
let directory: string;
let before: Snapshot;
let disks: Disks;

const open = () =>
  createDisks({
    directory,
    images: {
      containerTree: () => Promise.reject(new Error("no image is needed")),
      vmDisk: () => Promise.reject(new Error("no image is needed")),
    },
  });

beforeAll(async () => {
  before = await takeSnapshot();
  directory = await mkdtemp("/var/tmp/strata-disk-parts-");
  disks = open();
});
afterAll(async () => {
  await disks.recover();
  for (const uid of await disks.list()) await disks.remove(uid, signal);
  await rm(directory, { recursive: true });
  expect(await findLeaks(before, [directory])).toEqual([]);
});

const request = (uid: string) => ({ uid, sizeMib: 256, fileSystem: "ext4" as const });
const mount = (uid: string) => disks.mountData(request(uid), ids, signal);

/** As the guest's own root, for whom alone the mounts are; the way to them is closed to it here. */
function inside(script: string, ...args: string[]) {
  const user = ["--reuid", String(ids.idBase), "--regid", String(ids.idBase), "--clear-groups"];
  const pass = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"];
  return run("setpriv", [...user, ...pass, "sh", "-euc", script, "sh", ...args], { timeoutMs: 120_000 });
}

async function write(text: string): Promise<void> {
  for (const uid of both) await inside('echo "$2" > "$1/text"; sync "$1/text"', await mount(uid), text);
}

async function readText(tree: string): Promise<string> {
  return (await readFile(join(tree, "text"), "utf8")).trim();
}

async function readBoth(): Promise<string[]> {
  return Promise.all(both.map(async (uid) => readText(await mount(uid))));
}

/** What a snapshot has of both disks, by volumes that are made of it. */
async function readCopies(snapshot: string): Promise<string[]> {
  const found: string[] = [];
  for (const disk of both) {
    const uid = `copy-${disk}`;
    await disks.copyData({ snapshot, disk }, uid, signal);
    found.push(await readText(await mount(uid)));
    await disks.remove(uid, signal);
  }
  return found;
}

it("has every row that was written before it, of both disks from one moment", async () => {
  const [one, two] = [await mount("one"), await mount("two")];
  // So much that it is copied while the writer goes on, and what it wrote meanwhile after that.
  for (const tree of [one, two])
    await inside('dd if=/dev/urandom of="$1/fill" bs=1M count=100 status=none', tree);
  const script = `i=0; while [ ! -e "$1/stop" ]; do i=$((i+1)); echo $i >> "$1/rows"; sync "$1/rows"; echo $i >> "$2/rows"; sync "$2/rows"; done`;
  const writer = inside(script, one, two);
  const rows = async (tree: string) =>
    (await readFile(join(tree, "rows"), "utf8").catch(() => "")).split("\n").filter((row) => row !== "")
      .length;
  for (let round = 0; round < 5; round++) {
    const sure = await rows(two);
    expect(await disks.copyTogether(both, "rows", signal)).toMatchObject({ frozen: true });
    const counts: number[] = [];
    for (const disk of both) {
      await disks.copyData({ snapshot: "rows", disk }, `rows-${disk}`, signal);
      const copy = await mount(`rows-${disk}`);
      counts.push(await rows(copy));
      await inside('cmp "$1/fill" "$2/fill"', copy, disk === "one" ? one : two);
      await disks.remove(`rows-${disk}`, signal);
    }
    const [first = 0, second = 0] = counts;
    expect(second).toBeGreaterThanOrEqual(sure);
    expect([0, 1]).toContain(first - second);
    await disks.remove("rows", signal);
  }
  await inside(': > "$1/stop"', one);
  await writer;
});

it(`is complete or absent, and disks are old or new, through ${kills} kills`, {
  timeout: 900_000,
}, async () => {
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  const outcomes = { absent: 0, complete: 0, old: 0, mixed: 0, new: 0 };
  for (let round = 0; round < kills; round++) {
    const snapshot = `snap${round}`;
    await write(`before ${round}`);
    await killed("take", snapshot, randomInt(random, 1_200));
    disks = open();
    await disks.recover();
    // The source was not hurt, and its writers go on.
    expect(await readBoth()).toEqual([`before ${round}`, `before ${round}`]);
    await write(`after ${round}`);
    const copies = await readCopies(snapshot).catch((error) => {
      expect(error).toMatchObject({ code: "NotFound" });
      return undefined;
    });
    if (copies) {
      outcomes.complete++;
      expect(copies).toEqual([`before ${round}`, `before ${round}`]);
    } else {
      outcomes.absent++;
      await disks.remove(snapshot, signal);
      await disks.copyTogether(both, snapshot, signal);
    }
    const kept = copies ? "before" : "after";
    if (!copies) await write(`later ${round}`);
    const last = copies ? "after" : "later";

    await killed("restore", snapshot, randomInt(random, 450));
    disks = open();
    await disks.recover();
    const found = await readBoth();
    for (const text of found) expect([`${last} ${round}`, `${kept} ${round}`]).toContain(text);
    const fresh = found.filter((text) => text.startsWith(kept)).length;
    outcomes[fresh === 0 ? "old" : fresh === 2 ? "new" : "mixed"]++;
    await disks.restoreTogether(snapshot, both, signal);
    expect(await readBoth()).toEqual([`${kept} ${round}`, `${kept} ${round}`]);
    await disks.remove(snapshot, signal);
  }
  console.log(JSON.stringify(outcomes));
  expect(outcomes.complete + outcomes.absent).toBe(kills);
});

async function killed(verb: string, snapshot: string, afterMs: number): Promise<void> {
  const process_ = spawn(process.execPath, [child, directory, verb, snapshot, ...both], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(process_, "exit");
  await once(process_.stdout, "data");
  await systemClock.sleep(afterMs);
  process_.kill("SIGKILL");
  await ended;
}
