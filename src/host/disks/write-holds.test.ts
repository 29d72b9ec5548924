import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Freezer, whileFrozen } from "./freezing.ts";
import { WriteHolds } from "./write-holds.ts";

const signal = new AbortController().signal;
const uids = ["one", "two", "three"];
let top: string;
let frozen: Set<string>;
let failing: Set<string>;
let holds: WriteHolds;

const nameOf = (tree: string) => basename(dirname(tree));
const freezer: Freezer = {
  async freeze(tree) {
    if (failing.has(nameOf(tree))) throw new Error("cannot be frozen");
    frozen.add(nameOf(tree));
  },
  async thaw(tree) {
    frozen.delete(nameOf(tree));
  },
};

function create(): WriteHolds {
  const mounted = async () => new Set(uids.map((uid) => join(top, uid, "tree")));
  return new WriteHolds((uid) => join(top, uid), freezer, mounted);
}

beforeEach(async () => {
  top = mkdtempSync(join(tmpdir(), "holds-"));
  for (const uid of uids) mkdirSync(join(top, uid));
  [frozen, failing] = [new Set(), new Set()];
  holds = create();
});
afterEach(() => rmSync(top, { recursive: true }));

it("holds what is mounted, and says so to whoever comes after", async () => {
  mkdirSync(join(top, "loose"));
  for (const uid of ["one", "loose"]) await holds.hold(uid, signal);
  expect(holds.list()).toEqual(["one"]);
  expect([...frozen]).toEqual(["one"]);
  const next = create();
  const were = await Promise.all(["one", "two", "loose"].map((uid) => next.wasHeld(uid)));
  expect(were).toEqual([true, false, false]);
  await holds.thaw("one");
  expect(await next.wasHeld("one")).toBe(false);
  expect(frozen.size).toBe(0);
});

it("does not count what could not be frozen as held", async () => {
  failing.add("one");
  await expect(holds.hold("one", signal)).rejects.toThrow("cannot be frozen");
  expect(holds.has("one")).toBe(false);
  failing.clear();
  await holds.hold("one", signal);
  expect(holds.has("one")).toBe(true);
});

it("holds again whoever it can, whatever becomes of what was done meanwhile", async () => {
  for (const uid of uids) await holds.hold(uid, signal);
  failing.add("one");
  const use = async () => {
    expect([...frozen]).toEqual(["three"]);
    throw new Error("aborted");
  };
  await expect(holds.whileThawed(["one", "two"], use)).rejects.toThrow("aborted");
  expect([...frozen].sort()).toEqual(["three", "two"]);
  expect(holds.list().sort()).toEqual(["three", "two"]);
  expect(await holds.wasHeld("one")).toBe(false);
  failing.clear();
  await holds.hold("one", signal);
  expect(frozen.has("one")).toBe(true);
});

it("freezes what a predecessor counted as held, or does not count it", async () => {
  for (const uid of ["one", "two"]) holds.adopt(uid);
  failing.add("two");
  for (const uid of uids) await holds.holdAgain(uid);
  expect(holds.list()).toEqual(["one"]);
  expect([...frozen]).toEqual(["one"]);
});

it("thaws what was frozen for something that failed or was aborted meanwhile", async () => {
  const abort = new AbortController();
  const late: Freezer = {
    ...freezer,
    async freeze(tree) {
      abort.abort(new Error("nobody wants it any more"));
      await freezer.freeze(tree);
    },
  };
  const tree = join(top, "one", "tree");
  let used = false;
  const use = async () => {
    used = true;
  };
  await expect(whileFrozen(late, tree, abort.signal, use)).rejects.toThrow("nobody wants it");
  expect([used, frozen.size]).toEqual([false, 0]);
  const fails = () => whileFrozen(freezer, tree, signal, () => Promise.reject(new Error("in vain")));
  await expect(fails()).rejects.toThrow("in vain");
  expect(frozen.size).toBe(0);
});

it("holds the writable layer of a container's root as a volume's file system", async () => {
  mkdirSync(join(top, "root"));
  const layer = join(top, "root", "volume");
  const points: string[] = [];
  const record: Freezer = {
    freeze: async (tree) => void points.push(`freeze ${tree}`),
    thaw: async (tree) => void points.push(`thaw ${tree}`),
  };
  const roots = new WriteHolds(
    (uid) => join(top, uid),
    record,
    async () => new Set([layer]),
  );
  await roots.hold("root", signal);
  await roots.thaw("root");
  expect(points).toEqual([`freeze ${layer}`, `thaw ${layer}`]);
});
