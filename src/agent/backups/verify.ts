import { toTimestamp } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { checkRestored } from "../../host/backups/restored-disk.ts";
import type { Backup, BackupStatus } from "../../kinds/backup.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { withCondition } from "../../kinds/kind.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { openRepository, repositoryOf } from "./access.ts";
import { intactCondition } from "./intact.ts";

/**
 * Restores the backup into a scratch file, which checks each of its blocks, has its file system checked in full, and reads
 * all else of the repository. What came of it, for the status and as an event.
 * @throws what says nothing about the backup: a repository that does not answer, no space.
 */
export async function verifyBackup(
  context: AgentContext,
  backup: Backup,
  signal: AbortSignal,
): Promise<Partial<BackupStatus>> {
  const found = await examine(context, backup, signal);
  const at = toTimestamp(context.clock.now());
  const verified = found === undefined;
  const next = {
    type: "Verified",
    status: verified ? ("true" as const) : ("false" as const),
    reason: verified ? "Restored" : found.reason,
    message: verified ? "" : found.message.slice(0, 1000),
  };
  context.events.record(backup, {
    severity: verified ? "normal" : "warning",
    reason: verified ? "BackupVerified" : "BackupDamaged",
    message: verified ? "the backup was restored for a test and is whole" : next.message,
  });
  return {
    state: "ready",
    message: verified ? "" : `the test restore failed: ${next.message}`.slice(0, 1000),
    conditions: withCondition(backup.status.conditions, next, at),
    verifications: backup.spec.verifications,
    verifiedAt: at,
    observedGeneration: backup.metadata.generation,
  };
}

async function examine(
  context: AgentContext,
  backup: Backup,
  signal: AbortSignal,
): Promise<{ reason: string; message: string } | undefined> {
  const { backups, access } = await openRepository(context, backup, signal);
  const { snapshot, readBytes, fileSystem } = backup.status;
  if (snapshot === undefined || readBytes === undefined)
    throw new StrataError("Conflict", "it is not complete");
  const restored = await backups.withScratch(`verify-${backup.metadata.uid}`, async (path) => {
    try {
      await backups.restore(access, snapshot, { path, sizeBytes: readBytes }, { signal });
    } catch (error) {
      if (!hasCode(error, "Internal")) throw error;
      return { reason: "CannotBeRestored", message: error.message };
    }
    const wrong = fileSystem && (await checkRestored(path, fileSystem, signal));
    return wrong ? { reason: "FileSystemDamaged", message: wrong } : undefined;
  });
  const examined = await backups.examine(access, signal);
  const repository = repositoryOf(context, backup);
  if (repository) {
    const { conditions } = intactCondition(repository.status.conditions, examined, context.clock.now());
    const status = { ...repository.status, conditions };
    const view = context.views.backupRepositories;
    await reportStatus(context.client, backupRepositoryKind, view, repository, status, signal);
  }
  if (!examined.intact) return { reason: "RepositoryDamaged", message: examined.message };
  return restored;
}
