import * as z from "zod";
import { instanceSpecSchema } from "./instance.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

const fileSystem = z.enum(["ext4", "xfs"]);

/** A volume in the snapshot of an instance. */
export const volumePartSchema = z.strictObject({
  name: z.string(),
  uid: z.string(),
  sizeMib: z.int(),
  fileSystem: fileSystem.optional(),
  path: z.string().optional(),
  /** The storage pool that it is in, its volume's; absent: the host's own directory. */
  pool: z.string().optional(),
});
export type VolumePart = z.infer<typeof volumePartSchema>;

/**
 * A volume, or an instance with its root and all its volumes, as it was at one moment. It lies beside them and shares
 * their blocks where the host's file system can (btrfs, xfs). Volumes and instances can be created from it
 * (`spec.source`), and what it was taken of can be put back to it.
 */
export const snapshotKind = defineKind({
  name: "Snapshot",
  plural: "snapshots",
  scope: "project",
  summary: "A volume, or an instance with all its disks, as it was at one moment.",
  spec: z.strictObject({
    /** What it is of: either a volume or an instance. */
    volume: nameSchema.optional(),
    instance: nameSchema.optional(),
    /**
     * Of an instance that is a virtual machine: its memory as well, as it is at the same moment. Put back to that, it goes on
     * where it was. Whoever can read the snapshot's files can read all that was in memory.
     */
    memory: z.boolean().default(false),
    /**
     * How often what it was taken of was asked to be put back to it; one more than before does so once. Instances that
     * use those disks are stopped meanwhile and started again.
     */
    rollbacks: z.int().min(0).default(0),
  }),
  status: z.strictObject({
    /** `copying`: its moment is fixed and its writers go on, but not all of it is copied yet. */
    state: z.enum(["pending", "copying", "ready", "rolling-back", "failed"]),
    message: z.string().max(1024),
    /** Of what it was taken of. */
    host: z.string().optional(),
    volumeUid: z.string().optional(),
    instanceUid: z.string().optional(),
    /** Of an instance: its root volume, the content that is made from, and how it was set up. */
    rootUid: z.string().optional(),
    imageDigest: z.string().optional(),
    machine: instanceSpecSchema.optional(),
    /** Of an instance: the volumes that it had. */
    volumes: z.array(volumePartSchema).optional(),
    /** Of a volume: the storage pool that it is in, its volume's; absent: the host's own directory. */
    pool: z.string().optional(),
    /** Of the volume, or of the root, at that moment. */
    sizeMib: z.int().optional(),
    fileSystem: fileSystem.optional(),
    /**
     * `frozen`: writers were kept still, with all that they had written on disk; `crash`: as disks are after a power cut,
     * because the virtual machine's guest agent did not answer; `unused`: nobody was writing.
     */
    consistency: z.enum(["frozen", "crash", "unused"]).optional(),
    /** How long writers were kept waiting. */
    stillMs: z.int().min(0).optional(),
    /** What the memory takes on the host; absent: there is none in it. */
    memoryBytes: z.int().min(0).optional(),
    /** Why there is none in it, although it was asked for. */
    withoutMemory: z.string().max(500).optional(),
    /**
     * What became of the memory in the last rollback. `waiting`: it is for the next start of the instance; `resumed`: the
     * instance went on with it; `booted`: it could not, and started anew, for the reason in the message.
     */
    memoryUse: z.enum(["waiting", "resumed", "booted"]).optional(),
    takenAt: z.string().optional(),
    /** How often copying was cut off, and it was taken anew: then `takenAt` is a later moment than the first. */
    cutOff: z.int().min(0).optional(),
    /** The `spec.rollbacks` that has been carried out. */
    rollbacks: z.int().min(0).default(0),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its host to take it",
    rollbacks: 0,
    observedGeneration: 0,
  }),
  finalizers: ["agent"],
  validateUpdate(next, previous) {
    // Earlier versions stored none.
    const before = { ...previous, memory: previous.memory ?? false };
    const errors = immutable(next, before, ["volume", "instance", "memory"]);
    if (next.rollbacks < previous.rollbacks) {
      errors.push({ path: "spec.rollbacks", message: "can only grow", allowed: `>= ${previous.rollbacks}` });
    }
    return errors;
  },
});
export type Snapshot = ResourceOf<typeof snapshotKind>;

/** What it was taken of shall be put back to it, and has not been yet. */
export function isRollingBack({ spec, status, metadata }: Snapshot): boolean {
  return spec.rollbacks > status.rollbacks && metadata.deletedAt === undefined;
}
