/**
 * A machine that writes to none of its disks for a while: its file systems are frozen by the guest's agent, then the machine
 * is stopped, so that all of it holds still at one moment. A mark on disk says so before anything is done, and a driver that
 * finds the mark without having set it lets the machine go on: its predecessor was killed.
 *
 * Everything here is called with the guest's lock held.
 */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../../host/disks/data-disks.ts";
import { type GuestAgentOptions, withAgent } from "./guest-agent.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { withinHold } from "./hold-limit.ts";

/** A guest without an agent is not worth a longer wait; one that has much to write needs some. */
const timeoutMs = 5_000;

type AgentParts = Omit<GuestAgentOptions, "timeoutMs">;

export async function whileStill<Result>(
  guest: GuestLifecycle,
  parts: AgentParts,
  use: (signal: AbortSignal) => Promise<Result>,
  signal: AbortSignal,
): Promise<{ result: Result; guest: "frozen" | "paused" | "idle" }> {
  const inTime = () => withinHold(parts.clock, signal, use);
  if ((await guest.look()).state !== "running") return { result: await use(signal), guest: "idle" };
  await writeFile(markOf(guest), "");
  try {
    const frozen = await ask(guest, parts, "guest-fsfreeze-freeze", signal);
    await guest.withMonitor((monitor) => monitor.execute("stop"), { signal });
    return { result: await inTime(), guest: frozen ? "frozen" : "paused" };
  } finally {
    await goOn(guest, parts);
  }
}

/** Lets a machine go on that a killed predecessor had stopped. */
export async function recoverStill(guest: GuestLifecycle, parts: AgentParts): Promise<void> {
  if (await exists(markOf(guest))) await goOn(guest, parts);
}

async function goOn(guest: GuestLifecycle, parts: AgentParts): Promise<void> {
  if ((await guest.look()).state === "running") {
    await guest.withMonitor((monitor) => monitor.execute("cont"));
    await ask(guest, parts, "guest-fsfreeze-thaw", new AbortController().signal);
  }
  await rm(markOf(guest), { force: true });
}

/** False where the agent does not answer or does not do it. */
async function ask(
  guest: GuestLifecycle,
  { clock, random }: AgentParts,
  command: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await withAgent(guest.files.socket("agent"), { clock, random, timeoutMs }, signal, (agent) =>
      agent.execute(command),
    );
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function markOf({ files }: GuestLifecycle): string {
  return join(files.directory, "still");
}
