/**
 * Freezing mounted file systems, which writes out first what they have taken on, and lets their writers wait. A freeze that
 * has begun cannot be called back: a tool that is killed meanwhile completes it first, and so does one whose daemon was
 * killed. Each freeze here is therefore undone whenever it did not succeed.
 */
import { readdir, readFile } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";

/** All that was written comes on disk first. */
const freezeMs = 10 * 60_000;
const waitMs = 30_000;
const pollMs = 20;

/** Of the file system that is mounted at `tree`. */
export interface Freezer {
  /** Frozen already is success. @throws Internal, Timeout; it is not frozen then. */
  freeze(tree: string): Promise<void>;
  /** Not frozen is success. */
  thaw(tree: string): Promise<void>;
}

export function systemFreezer(clock: Clock): Freezer {
  return { freeze: (tree) => freeze(tree, clock), thaw };
}

/** Calls `use` while nobody can write to it, with all that was written before on disk; thawed whatever happens. */
export async function whileFrozen<Result>(
  freezer: Freezer,
  tree: string,
  signal: AbortSignal,
  use: () => Promise<Result>,
): Promise<Result> {
  signal.throwIfAborted();
  // Whoever froze it before may not have written out everything yet.
  await freezer.thaw(tree);
  await freezer.freeze(tree);
  try {
    signal.throwIfAborted();
    return await use();
  } finally {
    await freezer.thaw(tree);
  }
}

/** Nobody freezes `directory`, or anything below it, any more when this returns, so that what is frozen can be thawed. */
export async function untilNobodyFreezes(directory: string, clock: Clock): Promise<void> {
  for (const deadline = clock.monotonicMs() + waitMs; clock.monotonicMs() < deadline; ) {
    if (!(await isFreezing(directory))) return;
    await clock.sleep(pollMs);
  }
}

/** Without anybody's signal: it would end the tool, and not the freeze. */
async function freeze(tree: string, clock: Clock): Promise<void> {
  let detail: string;
  try {
    const options = { expected: [0, 1], timeoutMs: freezeMs };
    const { status, stderr } = await run("fsfreeze", ["--freeze", tree], options);
    // Busy: it is frozen already.
    if (status === 0 || /busy/i.test(stderr)) return;
    detail = stderr.trim();
  } catch (error) {
    await untilNobodyFreezes(tree, clock);
    await thaw(tree);
    throw error;
  }
  throw new StrataError("Internal", "the volume's file system cannot be frozen", { detail });
}

/** fsfreeze fails when there is nothing to thaw, which is as good. */
async function thaw(tree: string): Promise<void> {
  await run("fsfreeze", ["--unfreeze", tree], { expected: [0, 1] });
}

async function isFreezing(directory: string): Promise<boolean> {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    // It may have ended meanwhile.
    const [program, verb, target] = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split(
      "\0",
    );
    if (!program?.endsWith("fsfreeze") || verb !== "--freeze" || target === undefined) continue;
    if (target === directory || target.startsWith(`${directory}/`)) return true;
  }
  return false;
}
