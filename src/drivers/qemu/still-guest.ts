/**
 * A machine that writes to none of its disks for a while: its file systems are frozen by the guest's agent, then the machine
 * is stopped, so that all of it holds still at one moment. A mark on disk says so before anything is done, and a driver that
 * finds the mark without having set it lets the machine go on: its predecessor was killed.
 *
 * A freeze that was asked for cannot be called back: an agent that did not answer in time may complete it later. So once the
 * agent was asked, the mark stays until the agent has said that nothing is frozen, and it is asked again until then.
 *
 * Everything here is called with the guest's lock held.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, hasCode } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import { exists } from "../../host/disks/data-disks.ts";
import { type GuestAgent, type GuestAgentOptions, withAgent } from "./guest-agent.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { withinHold } from "./hold-limit.ts";

/** A guest without an agent is not worth a longer wait. */
const timeoutMs = 5_000;
/** One that has much to write needs some. */
const freezeMs = 30_000;
/** Between attempts to thaw: the first pause, which doubles, and the longest. */
const pauseMs = { first: 1_000, most: 60_000 } as const;
/** An agent that is silent for longer is gone for good, or the next driver finds the mark. */
const giveUpMs = 60 * 60_000;

/** What a mark says: the agent was asked for nothing yet. Anything else: it may freeze, or have frozen, something. */
const notAsked = "not asked";

export interface StillParts extends Omit<GuestAgentOptions, "timeoutMs"> {
  logger: Logger;
  /** With the guest's lock. */
  locked(guest: GuestLifecycle, task: () => Promise<void>): Promise<void>;
}

/** Marks of guests that are being thawed in the background. */
const thawing = new Set<string>();

export interface StillOptions {
  /** Called when its writers begin to wait; again, when freezing failed and they wait only from then on. */
  onStill?: () => void;
  /** The longest that `use` may take. Default holdLimitMs. */
  limitMs?: number;
}

export async function whileStill<Result>(
  guest: GuestLifecycle,
  parts: StillParts,
  use: (signal: AbortSignal) => Promise<Result>,
  signal: AbortSignal,
  { onStill = () => {}, limitMs }: StillOptions = {},
): Promise<{ result: Result; guest: "frozen" | "paused" | "idle" }> {
  const inTime = () => withinHold(parts.clock, signal, use, limitMs);
  if ((await guest.look()).state !== "running") return { result: await use(signal), guest: "idle" };
  // One that is there already is of a freeze that is not undone yet.
  if (!(await exists(markOf(guest)))) await writeFile(markOf(guest), notAsked);
  try {
    const frozen = await freeze(guest, parts, signal, onStill);
    if (!frozen) onStill();
    await guest.withMonitor((monitor) => monitor.execute("stop"), { signal });
    return { result: await inTime(), guest: frozen ? "frozen" : "paused" };
  } finally {
    await goOn(guest, parts);
  }
}

/** Lets a machine go on that a killed predecessor had stopped. */
export async function recoverStill(guest: GuestLifecycle, parts: StillParts): Promise<void> {
  if (!(await exists(markOf(guest)))) return;
  if (!thawing.has(markOf(guest))) return goOn(guest, parts);
  // Its agent is being asked already.
  if ((await guest.look()).state === "running") await guest.withMonitor((monitor) => monitor.execute("cont"));
}

/** Of a machine that is kept still: its agent may have frozen, or may yet freeze, something. */
export async function wasAskedToFreeze(guest: GuestLifecycle): Promise<boolean> {
  return (await readFile(markOf(guest), "utf8")) !== notAsked;
}

/** Lets a machine begin that is as it was while it was kept still: what is frozen in it is thawed. May be repeated. */
export async function goOnAsKept(guest: GuestLifecycle, parts: StillParts, frozen: boolean): Promise<void> {
  await writeFile(markOf(guest), frozen ? "" : notAsked);
  await goOn(guest, parts);
  if (!frozen) return;
  // Its clock stood still.
  await askAgent(guest, parts, new AbortController().signal, async (agent) => {
    await agent.execute("guest-set-time", { time: parts.clock.now() * 1e6 });
    return true;
  });
}

async function goOn(guest: GuestLifecycle, parts: StillParts): Promise<void> {
  if ((await guest.look()).state === "running") {
    await guest.withMonitor((monitor) => monitor.execute("cont"));
    const asked = (await readFile(markOf(guest), "utf8")) !== notAsked;
    if (asked && !(await thaw(guest, parts))) return thawLater(guest, parts);
  }
  await rm(markOf(guest), { force: true });
}

/** False where the agent does not answer or does not do it. */
async function freeze(
  guest: GuestLifecycle,
  parts: StillParts,
  signal: AbortSignal,
  onStill: () => void,
): Promise<boolean> {
  return askAgent(guest, parts, signal, async (agent) => {
    // It is there: from now on it may freeze.
    await writeFile(markOf(guest), "");
    onStill();
    await agent.execute("guest-fsfreeze-freeze", {}, freezeMs);
    return true;
  });
}

/** True once the agent has said that nothing is frozen. */
function thaw(guest: GuestLifecycle, parts: StillParts): Promise<boolean> {
  return askAgent(guest, parts, new AbortController().signal, async (agent) => {
    // Its answer says how it went; what counts is how it is.
    await agent.execute("guest-fsfreeze-thaw").catch((error) => {
      if (!hasCode(error, "Internal", "Unsupported")) throw error;
    });
    return (await statusOf(agent)) === "thawed";
  });
}

/** An agent that may not say how it is cannot be asked until it is well. */
async function statusOf(agent: GuestAgent) {
  try {
    return await agent.execute("guest-fsfreeze-status");
  } catch (error) {
    if (hasCode(error, "Unsupported")) return "thawed";
    throw error;
  }
}

function thawLater(guest: GuestLifecycle, parts: StillParts): void {
  const mark = markOf(guest);
  if (thawing.has(mark)) return;
  thawing.add(mark);
  const { logger } = parts;
  const { uid } = guest.files;
  logger.warn({ uid }, "the guest's agent does not say that its file systems are thawed; it is asked again");
  void keepThawing(guest, parts)
    .catch((error) => {
      logger.warn({ uid, error: describeError(error) }, "a guest's file systems may be frozen");
    })
    .finally(() => thawing.delete(mark));
}

/** Until it is thawed or has ended. @throws what the last attempt met. */
async function keepThawing(guest: GuestLifecycle, parts: StillParts): Promise<void> {
  const { clock, locked } = parts;
  const mark = markOf(guest);
  const end = clock.monotonicMs() + giveUpMs;
  for (let waitMs: number = pauseMs.first; ; waitMs = Math.min(waitMs * 2, pauseMs.most)) {
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(waitMs, resolve);
    await promise;
    let done = false;
    await locked(guest, async () => {
      const running = (await exists(mark)) && (await guest.look()).state === "running";
      done = !running || (await thaw(guest, parts));
      if (done) await rm(mark, { force: true });
    });
    if (done) return;
    if (clock.monotonicMs() >= end) throw new Error("its agent does not answer any more");
  }
}

async function askAgent(
  guest: GuestLifecycle,
  { clock, random }: StillParts,
  signal: AbortSignal,
  use: (agent: GuestAgent) => Promise<boolean>,
): Promise<boolean> {
  try {
    return await withAgent(guest.files.socket("agent"), { clock, random, timeoutMs }, signal, use);
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function markOf({ files }: GuestLifecycle): string {
  return join(files.directory, "still");
}
