import { StrataError } from "../../core/errors.ts";
import { type Backup, savedDisk } from "../../kinds/backup.ts";
import type { Image } from "../../kinds/image.ts";
import type { Progress } from "../../kinds/kind.ts";
import type { AgentContext } from "../agent-context.ts";
import { openRepository } from "./access.ts";
import { ProgressTold } from "./progress-told.ts";

/**
 * Writes the backup's disk into a new file; `volume` says whose, of a backup of an instance. `tell` gets a sentence now and
 * then.
 */
export async function restoreInto(
  context: AgentContext,
  { backup, volume }: { backup: Backup; volume: string | undefined },
  path: string,
  tell: (message: string) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const { name } = backup.metadata;
  const disk = savedDisk(backup, volume);
  if (!disk) throw new StrataError("Conflict", `backup "${name}" is not complete`);
  const { snapshot, readBytes } = disk;
  const { backups, access } = await openRepository(context, backup, signal);
  const percent = (bytes: number) => Math.floor((bytes / Math.max(1, readBytes)) * 100);
  const told = new ProgressTold((bytes) =>
    tell(`is being restored from backup "${name}": ${percent(bytes)} %`),
  );
  await backups.restore(access, snapshot, { path, sizeBytes: readBytes }, { signal, onProgress: told.tell });
  await told.ended();
}

/** Calls `use` with the root in a backup of an instance, as an archive. */
export async function withSavedRoot<Result>(
  context: AgentContext,
  { metadata }: Image,
  name: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress(progress: Progress): void },
  use: (archive: AsyncIterable<Uint8Array>) => Promise<Result>,
): Promise<Result> {
  const backup = context.views.backups.find({ project: metadata.project ?? "", name });
  const { snapshot, readBytes: sizeBytes } = backup?.status.root ?? {};
  if (!backup || snapshot === undefined || sizeBytes === undefined) {
    throw new StrataError("Invalid", `the backup "${name}" is gone, or not complete`);
  }
  const { backups, access } = await openRepository(context, backup, signal);
  const step = `restoring the root of backup ${name}`;
  const told = (bytes: number) => onProgress({ step, fraction: bytes / Math.max(1, sizeBytes) });
  return backups.readArchive(access, { snapshot, sizeBytes }, use, { signal, onProgress: told });
}
