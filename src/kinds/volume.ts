import * as z from "zod";
import type { FieldError } from "../core/errors.ts";
import { shortId, type Uid } from "../core/ids.ts";
import { formatMib } from "../core/units.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

/** Smallest and largest disk. */
export const diskLimits = { minMib: 64, maxMib: 16 * 1024 * 1024 } as const;

/** Volumes of one instance, beside its root. */
export const maxVolumes = 16;
/** mkfs.xfs makes nothing smaller. */
export const minXfsMib = 300;

export const volumeSpecSchema = z.strictObject({
  /** May grow, while the volume is in use as well; never shrinks. */
  sizeMib: z.int().min(diskLimits.minMib).max(diskLimits.maxMib),
  /** `root`: the root disk of one instance, made from an image, with it and by Strata alone. */
  role: z.enum(["data", "root"]).default("data"),
  /** Of a root volume. */
  type: z.enum(["vm", "container"]).optional(),
  /**
   * Made on first use, directly on the disk. Without one it is an empty disk, for virtual machines only.
   */
  fileSystem: z.enum(["ext4", "xfs"]).optional(),
  /** The storage pool that its bytes are in. Default: its source's; else each host's own directory. */
  pool: nameSchema.optional(),
  /**
   * `thin` (default): takes space as it is written. `full`: takes all of it from the start, so that a write never waits for space;
   * not on btrfs, which writes nothing in place.
   */
  allocation: z.enum(["thin", "full"]).optional(),
  /**
   * What is on it at first: a snapshot's content, of the same file system, in a volume that is as large or larger. Or a
   * backup's content, in the same way. Of a snapshot or backup of an instance, `volume` says which of its volumes.
   */
  source: z
    .strictObject({
      snapshot: nameSchema.optional(),
      volume: nameSchema.optional(),
      backup: nameSchema.optional(),
    })
    .refine(({ snapshot, backup }) => (snapshot === undefined) !== (backup === undefined), {
      error: "needs snapshot or backup, and not both",
    })
    .optional(),
  /** The instance that it is attached to. */
  instance: nameSchema.optional(),
  /** Where a container sees it. Default: /mnt/NAME. A virtual machine mounts it itself. */
  path: z
    .string()
    .max(1024)
    .regex(/^(\/[A-Za-z0-9_@=+-][A-Za-z0-9._@=+-]*)+$/, {
      error: "must be an absolute path of letters, digits and . _ @ = + - in which no name begins with a dot",
    })
    .optional(),
  /** True: deletion is refused until this is set to false. */
  protected: z.boolean().default(false),
});
export type VolumeSpec = z.infer<typeof volumeSpecSchema>;

export const volumeStatusSchema = z.strictObject({
  /**
   * Root volumes: `pending`, `ready`, `failed`. Others: `pending` (its source is being copied), `available` (nobody's),
   * `attaching`, `attached`, `detaching`.
   */
  state: z.enum(["pending", "ready", "failed", "available", "attaching", "attached", "detaching"]),
  message: z.string().max(1024),
  /** Where its bytes are; from when it is first attached. */
  host: z.string().optional(),
  /** The storage pool that it is in; absent: the host's own directory. */
  pool: z.string().optional(),
  /** The instance that has it, or has yet to let go of it. */
  instance: z.string().optional(),
  /** Where software in that instance finds it: a directory in containers, a device in virtual machines. */
  device: z.string().max(1100).optional(),
  /** What its instance sees of its size. */
  sizeMib: z.int().optional(),
  observedGeneration: z.int().min(0).default(0),
});
export type VolumeStatus = z.infer<typeof volumeStatusSchema>;

export const volumeKind = defineKind({
  name: "Volume",
  plural: "volumes",
  scope: "project",
  summary:
    "A disk that outlives instances, for virtual machines and containers alike; also the root disk of each instance.",
  spec: volumeSpecSchema,
  status: volumeStatusSchema,
  initialStatus: (): VolumeStatus => ({
    state: "pending",
    message: "waiting for its instance",
    observedGeneration: 0,
  }),
  finalizers: ["agent"],
  validateUpdate,
});
export type Volume = ResourceOf<typeof volumeKind>;

function validateUpdate(next: VolumeSpec, previous: VolumeSpec, status: VolumeStatus): FieldError[] {
  if (previous.role === "root") {
    const fields = Object.keys({ ...next, ...previous }) as (keyof VolumeSpec)[];
    return fields
      .filter((field) => next[field] !== previous[field])
      .map((field) => ({
        path: `spec.${field}`,
        message: "cannot change: this is the root volume of an instance, which has it for life",
        allowed: "volumes that were created as such",
      }));
  }
  const errors = immutable(next, previous, ["role", "type", "fileSystem", "source", "pool", "allocation"]);
  if (next.sizeMib < previous.sizeMib) {
    errors.push({
      path: "spec.sizeMib",
      message: `is ${next.sizeMib}, less than the ${previous.sizeMib} that the volume has; volumes do not shrink`,
      allowed: `${formatMib(previous.sizeMib)} or more`,
    });
  }
  const used = status.instance ?? previous.instance;
  if (next.path !== previous.path && used !== undefined && next.instance !== undefined) {
    const message = `cannot change while the volume is attached to "${used}"; detach it first`;
    errors.push({ path: "spec.path", message, allowed: previous.path ?? "the default" });
  }
  return errors;
}

/** Where a container sees it. */
export function mountPathOf({ metadata, spec }: Volume): string {
  return spec.path ?? `/mnt/${metadata.name}`;
}

/** Where a virtual machine finds it; the name is udev's, of QEMU's disks on virtio-scsi. */
export function devicePathOf({ metadata }: Volume): string {
  return `/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_${metadata.uid}`;
}

/** Of a volume that comes with an instance which is made of another's disks. */
export function copiedVolumeName(instance: string, volume: string): string {
  return `${instance}-${volume}`.slice(0, 63).replace(/-+$/, "");
}

/**
 * The names that the root volume of an instance may have, in the order of preference: `NAME-root` where that is short
 * enough, else (or when it is taken) one that is unique. Whose volume it is, `metadata.owner.uid` tells.
 */
export function rootVolumeNames(instance: string, uid: Uid): [plain: string | undefined, unique: string] {
  const plain = `${instance}-root`;
  return [plain.length <= 63 ? plain : undefined, `${instance.slice(0, 49)}-${shortId(uid)}-root`];
}
