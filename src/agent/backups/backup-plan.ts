import type { Backup, BackupStatus } from "../../kinds/backup.ts";
import type { BackupRepository } from "../../kinds/backup-repository.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface BackupWorld {
  hostName: string;
  backup: Backup | undefined;
  /** Undefined: its resource is gone, and with it the key. */
  repository: BackupRepository | undefined;
  /** What it is asked of is still there. */
  source: boolean;
}

export type BackupAction =
  /** Fixes the state of this moment of all its disks in copies, and records that it did. */
  | { type: "fix"; backup: Backup }
  /** Carries the copies to the repository. */
  | { type: "save"; backup: Backup }
  | { type: "drop-copy"; backup: Backup }
  /** Restores it for a test. */
  | { type: "verify"; backup: Backup }
  /** Takes it out of the repository. */
  | { type: "forget"; backup: Backup }
  /** Tells what stays in a repository that is lost. */
  | { type: "leave"; backup: Backup }
  | { type: "finalize"; backup: Backup };

type BackupPlan = Plan<BackupAction, BackupStatus>;

const nothing: BackupPlan = { status: undefined, actions: [] };

/**
 * The copy is recorded before it is read, and what was saved before the copy is removed, so that an interrupted backup goes on
 * with the moment that it had fixed, and is saved once.
 */
export function planBackup({ hostName, backup, repository, source }: BackupWorld): BackupPlan {
  if (!backup || backup.status.host !== hostName) return nothing;
  const { metadata, spec, status } = backup;
  if (metadata.deletedAt !== undefined) {
    if (!metadata.finalizers.includes("agent")) return nothing;
    const actions: BackupAction[] = [{ type: "drop-copy", backup }];
    // What never got there needs no way there either.
    if (repository && (status.takenAt !== undefined || status.snapshot !== undefined)) {
      actions.push({ type: repository.spec.lost ? "leave" : "forget", backup });
    }
    return { status: undefined, actions: [...actions, { type: "finalize", backup }] };
  }
  const told = (state: BackupStatus["state"], message: string): BackupStatus => ({
    ...status,
    ...{ state, message, observedGeneration: metadata.generation },
  });
  switch (status.state) {
    case "pending": {
      if (!repository)
        return { status: told("failed", "its repository was deleted before it was taken"), actions: [] };
      if (!source) {
        const what = spec.instance === undefined ? "volume" : "instance";
        return { status: told("failed", `its ${what} was deleted before it was taken`), actions: [] };
      }
      return { status: undefined, actions: [{ type: "fix", backup }] };
    }
    case "saving":
      return {
        status: undefined,
        actions: [
          { type: "save", backup },
          { type: "drop-copy", backup },
        ],
      };
    case "ready":
    case "verifying":
      if (spec.verifications > status.verifications) {
        return {
          status: told("verifying", "is being restored for a test"),
          actions: [{ type: "verify", backup }],
        };
      }
      // Once more after a restart: what was left of a copy then.
      return nothing;
    case "failed":
      return nothing;
  }
}
