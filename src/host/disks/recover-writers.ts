/** What becomes of writers that a killed predecessor had stopped. */
import { basename, dirname, join } from "node:path";
import { BoundedCalls } from "../../core/bounded-calls.ts";
import type { Clock } from "../../core/clock.ts";
import type { Disks } from "./disks.ts";
import { type Freezer, untilNobodyFreezes } from "./freezing.ts";
import { mountPoints } from "./mounts.ts";
import { judgeSpace } from "./space-rule.ts";
import { heldMounts, type WriteHolds } from "./write-holds.ts";

/** For a volume's place to say how full it is. */
const answerMs = 2_000;

export interface StoppedWriters {
  /** Of all disks. */
  directory: string;
  clock: Clock;
  freezer: Freezer;
  holds: WriteHolds;
  disks: Pick<Disks, "list" | "room">;
  /** With a disk's lock. */
  locked(uid: string, change: () => Promise<void>): Promise<void>;
  /** This host's mount points. */
  mounts?: () => Promise<ReadonlySet<string>>;
}

/**
 * Whoever was held for lack of space stays held, also where there is space meanwhile: whoever lets them go tells so.
 * Whoever was stopped for a copy goes on.
 */
export async function recoverWriters({ directory, clock, ...parts }: StoppedWriters): Promise<void> {
  const { freezer, holds, disks, locked, mounts = mountPoints } = parts;
  const calls = new BoundedCalls(clock, answerMs);
  // False where nobody can tell.
  const isFull = async (uid: string) => {
    const found = await calls.ask(uid, () => disks.room(uid).catch(() => undefined));
    return found?.answer !== undefined && judgeSpace({ ...found.answer, volumes: 1 }, true).hold;
  };
  await untilNobodyFreezes(directory, clock);
  const mounted = await mounts();
  for (const uid of await disks.list()) {
    if (!heldMounts.some((name) => mounted.has(join(directory, uid, name)))) await holds.forget(uid);
  }
  for (const point of mounted) {
    const [name, uid] = [basename(point), basename(dirname(point))];
    if (dirname(dirname(point)) !== directory || !heldMounts.some((one) => one === name)) continue;
    if ((await holds.wasHeld(uid)) || (await isFull(uid))) {
      holds.adopt(uid);
      // Whoever wants this one waits for its lock; nobody else waits for it.
      void locked(uid, () => holds.holdAgain(uid));
    } else await freezer.thaw(point);
  }
}
