import { z } from "zod";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

/**
 * A volume as it was at one moment. It lies beside the volume and shares its blocks where the host's file system can
 * (btrfs, xfs); a volume can be created from it (`spec.source`).
 */
export const snapshotKind = defineKind({
  name: "Snapshot",
  plural: "snapshots",
  scope: "project",
  summary: "A volume as it was at one moment.",
  spec: z.strictObject({
    volume: nameSchema,
  }),
  status: z.strictObject({
    state: z.enum(["pending", "ready", "failed"]),
    message: z.string().max(1024),
    /** The volume's. */
    host: z.string().optional(),
    volumeUid: z.string().optional(),
    /** The storage pool that it is in, its volume's; absent: the host's own directory. */
    pool: z.string().optional(),
    /** Of the volume at that moment. */
    sizeMib: z.int().optional(),
    fileSystem: z.enum(["ext4", "xfs"]).optional(),
    /**
     * `frozen`: writers were kept still, with all that they had written on disk; `crash`: as a disk is after a power cut,
     * because the virtual machine's guest agent did not answer; `unused`: nobody was writing.
     */
    consistency: z.enum(["frozen", "crash", "unused"]).optional(),
    /** How long writers were kept waiting. */
    stillMs: z.int().min(0).optional(),
    takenAt: z.string().optional(),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its host to take it",
    observedGeneration: 0,
  }),
  finalizers: ["agent"],
  validateUpdate: (next, previous) => immutable(next, previous, ["volume"]),
});
export type Snapshot = ResourceOf<typeof snapshotKind>;
