import { toTimestamp } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import type { Backups, RepositoryAccess } from "../../host/backups/backups.ts";
import { checkRestored } from "../../host/backups/restored-disk.ts";
import {
  type Backup,
  type BackupStatus,
  type SavedDisk,
  savedDisks,
  savedRoot,
  withVerified,
} from "../../kinds/backup.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { openRepository, repositoryOf } from "./access.ts";
import { intactCondition } from "./intact.ts";

/**
 * Restores each disk of the backup into a scratch file, which checks each of its blocks, and has its file system checked in
 * full; reads the archive of a root to its end, and then all else of the repository. What came of it, for the status and as an event.
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
    conditions: withVerified(backup.status.conditions, next, at),
    verifications: backup.spec.verifications,
    verifiedAt: at,
    observedGeneration: backup.metadata.generation,
  };
}

async function examine(context: AgentContext, backup: Backup, signal: AbortSignal): Promise<Found> {
  const { backups, access } = await openRepository(context, backup, signal);
  const restored = await restoreAll({ backups, access, backup, signal });
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

interface Test {
  backups: Backups;
  access: RepositoryAccess;
  backup: Backup;
  signal: AbortSignal;
}

type SavedBytes = Pick<SavedDisk, "snapshot" | "readBytes" | "fileSystem">;

type Found = { reason: string; message: string } | undefined;

/** The first thing that is wrong. */
async function restoreAll(test: Test): Promise<Found> {
  const { backup } = test;
  const root = savedRoot(backup);
  if (backup.status.root && !root) throw incomplete();
  const wrong = root && (await (root.form === "disk" ? restoreDisk : readRoot)(test, root));
  if (wrong) return wrong;
  for (const { name, disk } of savedDisks(backup)) {
    if (!disk) throw incomplete();
    const found = await restoreDisk(test, disk);
    if (found) return name === undefined ? found : { ...found, message: `volume ${name}: ${found.message}` };
  }
  return undefined;
}

/** What restic checks on its way is all of it; what is made of it is tested by a start. */
async function readRoot({ backups, access, signal }: Test, saved: SavedBytes): Promise<Found> {
  const { snapshot, readBytes: sizeBytes } = saved;
  return damageOf(() => backups.readArchive(access, { snapshot, sizeBytes }, async () => {}, { signal }));
}

function incomplete(): StrataError {
  return new StrataError("Conflict", "it is not complete");
}

/** Of a machine's whole disk, no file system is checked. */
async function restoreDisk({ backups, access, backup, signal }: Test, disk: SavedBytes): Promise<Found> {
  const { snapshot, readBytes: sizeBytes, fileSystem } = disk;
  return backups.withScratch(`verify-${backup.metadata.uid}`, async (path) => {
    const damage = await damageOf(() => backups.restore(access, snapshot, { path, sizeBytes }, { signal }));
    if (damage) return damage;
    const wrong = fileSystem && (await checkRestored(path, fileSystem, signal));
    return wrong ? { reason: "FileSystemDamaged", message: wrong } : undefined;
  });
}

async function damageOf(restore: () => Promise<void>): Promise<Found> {
  try {
    await restore();
    return undefined;
  } catch (error) {
    if (!hasCode(error, "Internal")) throw error;
    return { reason: "CannotBeRestored", message: error.message };
  }
}
