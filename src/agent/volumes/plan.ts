import type { Volume } from "../../kinds/volume.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface VolumeWorld {
  volume: Volume | undefined;
  /** Its instance: `absent` when the API knows it no more, `made` once its guest and so its disk were made. */
  owner: "absent" | "known" | "made";
  /** A guest of its instance is on this host. */
  guest: boolean;
  /** Its writers wait because there is no space on this host. */
  waiting: boolean;
}

export type VolumeAction = { type: "remove-disk"; volume: Volume } | { type: "finalize"; volume: Volume };

/** While something still uses a disk that is to go. */
const lookAgainMs = 5_000;

/**
 * A root volume is made and removed with its instance. Here is only what is left of that: to tell when it is there, and
 * to remove it when its instance has gone without it.
 */
export function planVolume(world: VolumeWorld): Plan<VolumeAction, Volume["status"]> {
  const { volume, owner, guest, waiting } = world;
  if (!volume) return { status: undefined, actions: [] };
  const { status, metadata } = volume;
  if (metadata.deletedAt === undefined) {
    if (owner !== "made") return { status, actions: [] };
    const message = waiting ? "writers wait: its host has no space left" : "";
    return { status: { ...status, state: "ready", message }, actions: [] };
  }
  if (owner !== "absent" || !metadata.finalizers.includes("agent")) return { status: undefined, actions: [] };
  if (guest) return { status: undefined, actions: [], recheckAfterMs: lookAgainMs };
  return {
    status: undefined,
    actions: [
      { type: "remove-disk", volume },
      { type: "finalize", volume },
    ],
  };
}
