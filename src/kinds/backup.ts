import { z } from "zod";
import {
  conditionSchema,
  defineKind,
  immutable,
  nameSchema,
  progressSchema,
  type ResourceOf,
} from "./kind.ts";

/** On backups that a schedule made: its name. */
export const backupScheduleLabel = "strata/backup-schedule";

/**
 * A volume as it was at one moment, in a repository. It needs neither the volume nor another backup: what several have in
 * common is stored once, and stays for as long as one of them needs it.
 */
export const backupKind = defineKind({
  name: "Backup",
  plural: "backups",
  scope: "project",
  summary: "A volume as it was at one moment, kept in a backup repository.",
  spec: z.strictObject({
    volume: nameSchema,
    repository: nameSchema,
    /** How often it was asked to be restored for a test; one more than before does so once. */
    verifications: z.int().min(0).default(0),
  }),
  status: z.strictObject({
    /** `saving`: the volume's state is fixed, and is being carried to the repository. */
    state: z.enum(["pending", "saving", "ready", "verifying", "failed"]),
    message: z.string().max(1024),
    /** Of its volume. */
    host: z.string().optional(),
    volumeUid: z.string().optional(),
    repositoryUid: z.string().optional(),
    /** Of the volume at that moment. */
    sizeMib: z.int().optional(),
    fileSystem: z.enum(["ext4", "xfs"]).optional(),
    /** As of a snapshot of the volume. */
    consistency: z.enum(["frozen", "crash", "unused"]).optional(),
    takenAt: z.string().optional(),
    progress: progressSchema.optional(),
    /** Names it in the repository: a snapshot of restic. */
    snapshot: z.string().optional(),
    /** Of the disk, holes included. */
    readBytes: z.int().min(0).optional(),
    /** Of data that the repository did not have, before compression. */
    addedBytes: z.int().min(0).optional(),
    /** From the moment that it shows to the end of saving it. */
    tookMs: z.int().min(0).optional(),
    /** `Verified`: it was restored for a test, and what came was whole. */
    conditions: z.array(conditionSchema),
    /** The `spec.verifications` that have been carried out. */
    verifications: z.int().min(0),
    verifiedAt: z.string().optional(),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its host to take it",
    conditions: [],
    verifications: 0,
    observedGeneration: 0,
  }),
  finalizers: ["agent"],
  validateUpdate(next, previous) {
    const errors = immutable(next, previous, ["volume", "repository"]);
    if (next.verifications < previous.verifications) {
      const allowed = `>= ${previous.verifications}`;
      errors.push({ path: "spec.verifications", message: "can only grow", allowed });
    }
    return errors;
  },
});
export type Backup = ResourceOf<typeof backupKind>;
export type BackupStatus = Backup["status"];

/** What is in the repository is complete. */
export function isRestorable({ status }: Backup): boolean {
  return status.snapshot !== undefined && (status.state === "ready" || status.state === "verifying");
}
