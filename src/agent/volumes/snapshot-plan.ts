import { fromTimestamp, type Instant } from "../../core/clock.ts";
import type { Snapshot } from "../../kinds/snapshot.ts";
import { isRollingBack } from "../../kinds/snapshot.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { RollbackTarget } from "./rollbacks.ts";

export interface SnapshotWorld {
  hostName: string;
  snapshot: Snapshot | undefined;
  /** What it was asked for is still there. */
  source: boolean;
  /** Only while something shall be put back to it; undefined when what it was taken of is gone. */
  rollback: (RollbackTarget & { running: readonly string[] }) | undefined;
  /** Only while its memory waits for the instance's next start: what the instance's driver says of that; undefined: nothing. */
  memory: { state: "waiting" | "resumed" | "booted"; message: string } | undefined;
}

export type SnapshotAction =
  | { type: "take"; snapshot: Snapshot }
  /** Waits until what is being copied since it was taken is there. */
  | { type: "complete"; snapshot: Snapshot }
  /** Nothing that uses these disks runs. */
  | { type: "roll-back"; snapshot: Snapshot; target: RollbackTarget }
  | { type: "remove-disk"; snapshot: Snapshot }
  | { type: "finalize"; snapshot: Snapshot };

type SnapshotPlan = Plan<SnapshotAction, Snapshot["status"]>;

const nothing: SnapshotPlan = { status: undefined, actions: [] };
/** Until instances have stopped, which their own reconciler sees to. */
const lookAgainMs = 250;
/** Until an instance has started with its memory. */
const lookForStartMs = 1_000;
/** From one taking to the next, when copying was cut off twice or more: each keeps writers still. It doubles. */
const restMs = { first: 1_000, most: 5 * 60_000 } as const;

/** One that was interrupted is taken anew: nobody was told of it yet. */
export function planSnapshot(world: SnapshotWorld, now: Instant): SnapshotPlan {
  const { hostName, snapshot, source } = world;
  if (!snapshot || snapshot.status.host !== hostName) return nothing;
  const { metadata, status } = snapshot;
  const observedGeneration = metadata.generation;
  if (metadata.deletedAt !== undefined) {
    if (!metadata.finalizers.includes("agent")) return nothing;
    return {
      status: undefined,
      actions: [
        { type: "remove-disk", snapshot },
        { type: "finalize", snapshot },
      ],
    };
  }
  if (status.state === "copying") {
    return { status: { ...status, observedGeneration }, actions: [{ type: "complete", snapshot }] };
  }
  if (status.state === "pending") {
    const doing = status.cutOff === undefined ? "is being copied" : status.message;
    const taking = { ...status, message: doing, observedGeneration };
    const rest = source ? restOf(status, now) : 0;
    if (rest > 0) return { status: taking, actions: [], recheckAfterMs: rest };
    if (source) return { status: taking, actions: [{ type: "take", snapshot }] };
    const what = snapshot.spec.instance === undefined ? "volume" : "instance";
    const message = `its ${what} was deleted before it was taken`;
    return { status: { ...status, state: "failed", message, observedGeneration }, actions: [] };
  }
  if (isRollingBack(snapshot) && status.state !== "failed") return planRollback(world, snapshot);
  if (status.memoryUse === "waiting") return planMemory(world, snapshot);
  return nothing;
}

/** What was put back is used by the instance's next start, or is not; the instance's driver knows. */
function planMemory({ memory }: SnapshotWorld, { status, metadata }: Snapshot): SnapshotPlan {
  const observedGeneration = metadata.generation;
  if (memory?.state === "waiting") {
    return { status: { ...status, observedGeneration }, actions: [], recheckAfterMs: lookForStartMs };
  }
  const memoryUse = memory?.state ?? "booted";
  const why = memory?.message ?? "something else was put back, or its instance is gone";
  const message = memoryUse === "resumed" ? "" : bootedMessage(why);
  return { status: { ...status, memoryUse, message, observedGeneration }, actions: [] };
}

export function bootedMessage(why: string): string {
  return `its instance starts anew, without the memory: ${why}`.slice(0, 1000);
}

/** In milliseconds. What went well for long is taken anew at once: only what is cut off again and again waits. */
function restOf({ takenAt, cutOff = 0 }: Snapshot["status"], now: Instant): number {
  if (cutOff < 2) return 0;
  const full = Math.min(restMs.most, restMs.first * 2 ** Math.min(cutOff - 2, 20));
  const since = fromTimestamp(takenAt ?? "") ?? Number.NEGATIVE_INFINITY;
  return Math.min(full, Math.max(0, since + full - now));
}

function planRollback({ rollback }: SnapshotWorld, snapshot: Snapshot): SnapshotPlan {
  const { metadata, status } = snapshot;
  if (!rollback) {
    return {
      status: rolledBack(snapshot, "what it was taken of is gone: nothing was put back"),
      actions: [],
    };
  }
  const { running, ...target } = rollback;
  if (running.length > 0) {
    const message = `waiting for ${running.map((name) => `instance "${name}"`).join(", ")} to stop`;
    const observedGeneration = metadata.generation;
    return {
      status: { ...status, state: "rolling-back", message, observedGeneration },
      actions: [],
      recheckAfterMs: lookAgainMs,
    };
  }
  const message = "disks are being put back to it";
  return {
    status: { ...status, state: "rolling-back", message, observedGeneration: metadata.generation },
    actions: [{ type: "roll-back", snapshot, target }],
  };
}

/** What becomes of the memory in a rollback: it waits for the next start, or cannot be used, and why. */
export type MemoryUse = { memoryUse: "waiting" | "booted"; message: string };

/** As it is once everything is as it was at that moment. */
export function rolledBack(
  { spec, status, metadata }: Snapshot,
  message = "",
  memory?: MemoryUse,
): Snapshot["status"] {
  const { rollbacks } = spec;
  const { memoryUse: _, ...kept } = status;
  const observedGeneration = metadata.generation;
  return { ...kept, state: "ready", message, rollbacks, observedGeneration, ...memory };
}
