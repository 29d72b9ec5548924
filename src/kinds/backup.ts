import * as z from "zod";
import { instanceSpecSchema } from "./instance.ts";
import {
  type Condition,
  conditionSchema,
  defineKind,
  immutable,
  nameSchema,
  progressSchema,
  type ResourceOf,
  withCondition,
} from "./kind.ts";
import { volumePartSchema } from "./snapshot.ts";

/** On backups that a schedule made: its name. */
export const backupScheduleLabel = "strata/backup-schedule";

/** What of one disk is in the repository; absent while it is not there yet. */
const savedShape = {
  /** Names it in the repository: a snapshot of restic. */
  snapshot: z.string().optional(),
  /** Of a disk, holes included; of a root that is saved as files, its archive. */
  readBytes: z.int().min(0).optional(),
  /** Of data that the repository did not have, before compression. */
  addedBytes: z.int().min(0).optional(),
};

/**
 * A volume, or an instance with its root and all its volumes, as it was at one moment, in a repository. It needs neither what
 * it was taken of, nor an image, nor another backup: what several have in common is stored once, and stays for as long as one
 * of them needs it.
 */
export const backupKind = defineKind({
  name: "Backup",
  plural: "backups",
  scope: "project",
  summary:
    "A volume, or an instance with all its disks, as it was at one moment, kept in a backup repository.",
  spec: z.strictObject({
    /** What it is of: either a volume or an instance. */
    volume: nameSchema.optional(),
    instance: nameSchema.optional(),
    repository: nameSchema,
    /** How often it was asked to be restored for a test; one more than before does so once. */
    verifications: z.int().min(0).default(0),
    /**
     * Of an instance: how often it was asked to be restored and started for a test; one more than before does so once, after
     * the restoring for a test that was asked for as well.
     */
    bootTests: z.int().min(0).default(0),
    /**
     * What says that a started test instance is up: a command inside that exits with 0. Left out: its services and health
     * check; where it has none, its init.
     */
    bootCommand: z.array(z.string().max(4096)).min(1).max(256).optional(),
  }),
  status: z.strictObject({
    /** `saving`: the state of all disks is fixed, and is being carried to the repository. */
    state: z.enum(["pending", "saving", "ready", "verifying", "failed"]),
    message: z.string().max(1024),
    /** Of what it was taken of. */
    host: z.string().optional(),
    volumeUid: z.string().optional(),
    instanceUid: z.string().optional(),
    /** Of an instance: how it was set up, and the content that its root was made from. */
    machine: instanceSpecSchema.optional(),
    imageDigest: z.string().optional(),
    /**
     * Of an instance: its root, whole, as an archive of its files, or the disk itself of a machine that starts by its own boot
     * loader; `uid` is its root volume's.
     */
    root: z
      .strictObject({ uid: z.string(), form: z.enum(["archive", "disk"]).optional(), ...savedShape })
      .optional(),
    /** Of an instance: the volumes that it had. */
    volumes: z.array(volumePartSchema.extend(savedShape)).optional(),
    repositoryUid: z.string().optional(),
    /** Of the volume, or of the root, at that moment. */
    sizeMib: z.int().optional(),
    fileSystem: z.enum(["ext4", "xfs"]).optional(),
    /** As of a snapshot of the volume. */
    consistency: z.enum(["frozen", "crash", "unused"]).optional(),
    takenAt: z.string().optional(),
    progress: progressSchema.optional(),
    /** Of a volume what is in the repository; of an instance, the sums of its disks once all of them are. */
    ...savedShape,
    /** From the moment that it shows to the end of saving it. */
    tookMs: z.int().min(0).optional(),
    /** `Verified`: it was restored for a test, and what came was whole. */
    conditions: z.array(conditionSchema),
    /** The `spec.verifications` that have been carried out. */
    verifications: z.int().min(0),
    verifiedAt: z.string().optional(),
    /** The `spec.bootTests` that have been carried out. */
    bootTests: z.int().min(0).optional(),
    bootedAt: z.string().optional(),
    /** While a test instance is there: since when. */
    bootTest: z.strictObject({ since: z.string() }).optional(),
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
    const errors = immutable(next, previous, ["volume", "instance", "repository"]);
    for (const field of ["verifications", "bootTests"] as const) {
      const least = previous[field] ?? 0;
      if (next[field] >= least) continue;
      const allowed = `>= ${least}`;
      errors.push({ path: `spec.${field}`, message: "can only grow", allowed });
    }
    return errors;
  },
});
export type Backup = ResourceOf<typeof backupKind>;
export type BackupStatus = Backup["status"];

/** A start for a test has been asked for, and not carried out. */
export function wantsBootTest({ spec, status }: Backup): boolean {
  // Backups of earlier versions have neither.
  return (spec.bootTests ?? 0) > (status.bootTests ?? 0);
}

/** Reasons of the condition `Verified` that starts for a test give. */
const bootReasons: ReadonlySet<string> = new Set(["Booted", "NotBooted"]);

/**
 * With `next` as the condition `Verified`. What one kind of test found wrong stays until that kind finds it right: a backup that
 * is whole may still not start, and one that starts may lack pieces that a start does not need.
 */
export function withVerified(
  conditions: readonly Condition[],
  next: Pick<Condition, "status" | "reason" | "message">,
  at: string,
): Condition[] {
  const known = conditions.find(({ type }) => type === "Verified");
  const other = known && bootReasons.has(known.reason) !== bootReasons.has(next.reason);
  if (next.status === "true" && known?.status === "false" && other) return [...conditions];
  return withCondition(conditions, { type: "Verified", ...next }, at);
}

/** What is in the repository is complete. */
export function isRestorable({ status }: Backup): boolean {
  const { state, snapshot, root } = status;
  return (snapshot ?? root?.snapshot) !== undefined && (state === "ready" || state === "verifying");
}

/** The root in a backup of an instance, in its form. */
export interface SavedRoot {
  form: "archive" | "disk";
  snapshot: string;
  readBytes: number;
}

/** Undefined while it is not there, and of volumes. */
export function savedRoot({ status: { root } }: Backup): SavedRoot | undefined {
  const { form = "archive", snapshot, readBytes } = root ?? {};
  return snapshot === undefined || readBytes === undefined ? undefined : { form, snapshot, readBytes };
}

/** A disk with a file system or none, as the repository has it. */
export interface SavedDisk {
  snapshot: string;
  readBytes: number;
  sizeMib: number;
  fileSystem?: "ext4" | "xfs" | undefined;
}

/** The disk of a volume in a backup; `name` says which, in a backup of an instance. Undefined while it is not there. */
export function savedDisk({ status }: Backup, name: string | undefined): SavedDisk | undefined {
  const part =
    status.instanceUid === undefined
      ? name === undefined
        ? status
        : undefined
      : status.volumes?.find((one) => one.name === name);
  const { snapshot, readBytes, sizeMib, fileSystem } = part ?? {};
  if (snapshot === undefined || readBytes === undefined || sizeMib === undefined) return undefined;
  return { snapshot, readBytes, sizeMib, fileSystem };
}

/** All disks of volumes in a backup, by their names; of a volume, one without. */
export function savedDisks(backup: Backup): { name: string | undefined; disk: SavedDisk | undefined }[] {
  const { instanceUid, volumes = [] } = backup.status;
  const names = instanceUid === undefined ? [undefined] : volumes.map(({ name }) => name);
  return names.map((name) => ({ name, disk: savedDisk(backup, name) }));
}
