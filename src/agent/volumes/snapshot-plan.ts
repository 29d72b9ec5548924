import type { JsonObject } from "../../core/json.ts";
import type { Snapshot } from "../../kinds/snapshot.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface SnapshotWorld {
  hostName: string;
  snapshot: Snapshot | undefined;
  /** The volume that it was asked for is still there. */
  volume: boolean;
  /** The guest that has the volume as a disk and must be kept still. */
  guest: { driver: string; handle: JsonObject } | undefined;
}

export type SnapshotAction =
  | { type: "take"; snapshot: Snapshot; guest: SnapshotWorld["guest"] }
  | { type: "remove-disk"; snapshot: Snapshot }
  | { type: "finalize"; snapshot: Snapshot };

type SnapshotPlan = Plan<SnapshotAction, Snapshot["status"]>;

const nothing: SnapshotPlan = { status: undefined, actions: [] };

/** One that was interrupted is taken anew: nobody was told of it yet. */
export function planSnapshot({ hostName, snapshot, volume, guest }: SnapshotWorld): SnapshotPlan {
  if (!snapshot || snapshot.status.host !== hostName) return nothing;
  const { metadata, status } = snapshot;
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
  if (status.state !== "pending") return nothing;
  if (!volume) {
    const message = "its volume was deleted before it was taken";
    const observedGeneration = metadata.generation;
    return { status: { ...status, state: "failed", message, observedGeneration }, actions: [] };
  }
  return { status: undefined, actions: [{ type: "take", snapshot, guest }] };
}
