import type { JsonObject } from "../../core/json.ts";
import type { DiskPart } from "../../host/disks/disk-parts.ts";
import type { Backup } from "../../kinds/backup.ts";
import type { Instance } from "../../kinds/instance.ts";
import { devicePathOf, mountPathOf, type Volume, type VolumeStatus } from "../../kinds/volume.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface AttachmentWorld {
  hostName: string;
  /** One that a user created, not an instance's root. */
  volume: Volume | undefined;
  /** The instance that it is wanted for, when that is on this host. */
  wanted: Instance | undefined;
  /** The instance that status names, when that is on this host. */
  current: VolumeHolder | undefined;
  /** Its writers wait because there is no space where it is. */
  waiting: boolean;
  /** Uid of the snapshot that it is made from, or one disk of it, or the backup, while that is there. */
  source: string | DiskPart | FromBackup | undefined;
}

/** `volume`: which one, of a backup of an instance. */
export interface FromBackup {
  backup: Backup;
  volume: string | undefined;
}

export interface VolumeHolder {
  instance: Instance;
  /** `starting`: it comes to run, with volumes that are settled already. */
  guest: "idle" | "starting" | "running";
  /** The guest surely has it, with this size; undefined also where nobody knows. */
  sizeMib: number | undefined;
  /** How to reach the guest; absent when it was never made. */
  reach: { driver: string; handle: JsonObject; canPlug: boolean } | undefined;
}

export type AttachmentAction =
  /** Records that the volume belongs to the instance, before anything of it is made. */
  | { type: "claim"; volume: Volume; instance: Instance }
  /** Copies its source. */
  | { type: "copy"; volume: Volume; from: string | DiskPart }
  /** Restores its backup. */
  | { type: "restore"; volume: Volume; from: FromBackup }
  /** Makes it, unless it is there, as large as wanted, and gives it to the guest. */
  | { type: "plug"; volume: Volume; instance: Instance; driver: string; handle: JsonObject }
  | { type: "unplug"; volume: Volume; instance: Instance; driver: string; handle: JsonObject }
  /** Nothing of this host uses it any more, and the status says so. */
  | { type: "release"; volume: Volume }
  | { type: "remove-disk"; volume: Volume }
  | { type: "finalize"; volume: Volume };

export type AttachmentPlan = Plan<AttachmentAction, VolumeStatus>;

const nothing: AttachmentPlan = { status: undefined, actions: [] };
/** A start that fails ends without a hint. */
const startPatienceMs = 5_000;

/**
 * A volume is recorded as an instance's before the guest has it, and stays recorded until nothing of the guest uses it: so
 * two never write to it at once.
 */
export function planAttachment(world: AttachmentWorld): AttachmentPlan {
  const { volume, wanted, current, hostName } = world;
  if (!volume) return nothing;
  const { metadata, status, spec } = volume;
  const leaving = metadata.deletedAt !== undefined;
  const wish = leaving ? undefined : spec.instance;
  if (status.instance === undefined) {
    if (status.state === "pending" && !leaving) return planCopy(world, volume);
    // Nobody is given an empty disk in place of what it should hold.
    if (status.state === "failed" && !leaving) return nothing;
    if (leaving) return status.host === hostName ? planRemoval(volume) : nothing;
    if (wish === undefined) return planFree(world, volume);
    if (!wanted || wanted.metadata.deletedAt !== undefined) return nothing;
    if (status.host !== undefined && status.host !== hostName) return nothing;
    return { status: undefined, actions: [{ type: "claim", volume, instance: wanted }] };
  }
  if (status.host !== hostName) return nothing;
  if (!current) return { status: told(volume, "detaching", ""), actions: [{ type: "release", volume }] };
  return status.instance === wish
    ? planAttached(volume, current, world.waiting)
    : planLeaving(volume, current);
}

function planRemoval(volume: Volume): AttachmentPlan {
  if (!volume.metadata.finalizers.includes("agent")) return nothing;
  return {
    status: undefined,
    actions: [
      { type: "remove-disk", volume },
      { type: "finalize", volume },
    ],
  };
}

/** Before anybody can have it. */
function planCopy({ hostName, source }: AttachmentWorld, volume: Volume): AttachmentPlan {
  if (volume.status.host !== hostName) return nothing;
  if (source === undefined) {
    const message = "its source was deleted before it was copied; delete it";
    return { status: told(volume, "failed", message), actions: [] };
  }
  if (typeof source === "object" && "backup" in source) {
    return { status: undefined, actions: [{ type: "restore", volume, from: source }] };
  }
  return { status: undefined, actions: [{ type: "copy", volume, from: source }] };
}

/** Only of its own host: others see it too. */
function planFree({ hostName }: AttachmentWorld, volume: Volume): AttachmentPlan {
  const { host } = volume.status;
  if (host !== undefined && host !== hostName) return nothing;
  return { status: told(volume, "available", ""), actions: [] };
}

function planAttached(volume: Volume, current: VolumeHolder, waiting: boolean): AttachmentPlan {
  const { instance, guest, sizeMib, reach } = current;
  const { name, deletedAt } = instance.metadata;
  // Its guest is on its way out; what becomes of the volume shows once it is gone.
  if (deletedAt !== undefined) return nothing;
  if (guest === "starting") return { status: volume.status, actions: [], recheckAfterMs: startPatienceMs };
  const { sizeMib: wantedMib } = volume.spec;
  if (guest === "idle") {
    return { status: told(volume, "attached", `is there when the instance "${name}" starts`), actions: [] };
  }
  // What was attached while the guest did not run has been part of its start.
  const has = sizeMib ?? (volume.status.state === "attached" ? volume.status.sizeMib : undefined);
  if (has === wantedMib) {
    const device = placeIn(volume, instance.spec.type);
    const where = volume.status.pool === undefined ? "its host" : `storage pool "${volume.status.pool}"`;
    const message = waiting ? `writers wait: ${where} has no space left` : "";
    return { status: { ...told(volume, "attached", message), sizeMib: has, device }, actions: [] };
  }
  if (!reach?.canPlug) {
    const driver = reach?.driver ?? "of its guest";
    const message = `the driver ${driver} has no volumes that come and go; detach it and use an instance of another driver`;
    return { status: told(volume, "attaching", message), actions: [] };
  }
  const { driver, handle } = reach;
  const grows = volume.status.state === "attached";
  const status = grows
    ? told(volume, "attached", "is growing")
    : told(volume, "attaching", "is being attached");
  return {
    // Nothing is waited for longer than the change takes: whoever grew it sees `sizeMib` follow.
    status: { ...status, observedGeneration: volume.status.observedGeneration },
    actions: [{ type: "plug", volume, instance, driver, handle }],
    reportAfterMs: 100,
  };
}

function planLeaving(volume: Volume, current: VolumeHolder): AttachmentPlan {
  const { instance, guest, reach } = current;
  if (guest === "starting") {
    const message = "is detached once its instance has started";
    return { status: told(volume, "detaching", message), actions: [], recheckAfterMs: startPatienceMs };
  }
  const release: AttachmentAction = { type: "release", volume };
  if (guest === "idle" || !reach?.canPlug)
    return { status: told(volume, "detaching", ""), actions: [release] };
  const { driver, handle } = reach;
  return {
    status: told(volume, "detaching", "is being detached"),
    actions: [{ type: "unplug", volume, instance, driver, handle }, release],
  };
}

function told(volume: Volume, state: VolumeStatus["state"], message: string): VolumeStatus {
  return { ...volume.status, state, message, observedGeneration: volume.metadata.generation };
}

/** As it is once nothing of its last instance uses it. */
export function freedStatus({ status, metadata }: Volume): VolumeStatus {
  const { instance, device, sizeMib, ...kept } = status;
  return { ...kept, state: "available", message: "", observedGeneration: metadata.generation };
}

/** Where software in the instance finds it. */
export function placeIn(volume: Volume, type: Instance["spec"]["type"]): string {
  return type === "vm" ? devicePathOf(volume) : mountPathOf(volume);
}
