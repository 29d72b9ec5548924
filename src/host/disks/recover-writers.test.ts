import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import type { Freezer } from "./freezing.ts";
import { recoverWriters } from "./recover-writers.ts";
import { WriteHolds } from "./write-holds.ts";

const GiB = 1024 ** 3;
const signal = new AbortController().signal;

it("holds on whoever was held, also where there is space by now; whoever was copied goes on", async () => {
  const directory = mkdtempSync(join(tmpdir(), "recover-"));
  const treeOf = (uid: string) => join(directory, uid, "tree");
  const uids = ["held", "copied", "full", "away"];
  for (const uid of uids) mkdirSync(join(directory, uid));
  const frozen = new Set<string>();
  const mounted = new Set(uids.map(treeOf));
  const mounts = async () => mounted;
  const freezer: Freezer = {
    freeze: async (tree) => void frozen.add(tree),
    thaw: async (tree) => void frozen.delete(tree),
  };
  const create = () => new WriteHolds((uid) => join(directory, uid), freezer, mounts);
  const killed = create();
  for (const uid of ["held", "away"]) await killed.hold(uid, signal);
  frozen.add(treeOf("copied"));
  mounted.delete(treeOf("away"));

  const holds = create();
  const pending: Promise<void>[] = [];
  await recoverWriters({
    ...{ directory, clock: systemClock, freezer, holds, mounts },
    disks: {
      list: async () => uids,
      room: async (uid) => ({
        ...{ place: 1, capacityBytes: 100 * GiB, mayTakeBytes: 200 * GiB },
        freeBytes: uid === "full" ? 0 : 90 * GiB,
      }),
    },
    locked: async (_uid, change) => void pending.push(change()),
  });
  await Promise.all(pending);
  expect(holds.list().sort()).toEqual(["full", "held"]);
  expect(frozen).toEqual(new Set(["held", "full", "away"].map(treeOf)));
  expect(existsSync(join(directory, "away", "held"))).toBe(false);
  await holds.thaw("held");
  expect(frozen.has(treeOf("held"))).toBe(false);
  rmSync(directory, { recursive: true });
});
