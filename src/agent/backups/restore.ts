import { StrataError } from "../../core/errors.ts";
import type { RootSource } from "../../host/images/image-store.ts";
import { type Backup, savedDisk, savedRoot } from "../../kinds/backup.ts";
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

/** Calls `use` with the root in a backup of an instance, in its form. */
export async function withSavedRoot<Result>(
  context: AgentContext,
  { metadata }: Image,
  name: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress(progress: Progress): void },
  use: (root: RootSource) => Promise<Result>,
): Promise<Result> {
  const backup = context.views.backups.find({ project: metadata.project ?? "", name });
  const root = backup && savedRoot(backup);
  if (!root) throw new StrataError("Invalid", `the backup "${name}" is gone, or not complete`);
  const { form, snapshot, readBytes: sizeBytes } = root;
  const { backups, access } = await openRepository(context, backup, signal);
  const step = `restoring the root of backup ${name}`;
  const told = (bytes: number) => onProgress({ step, fraction: bytes / Math.max(1, sizeBytes) });
  const options = { signal, onProgress: told };
  if (form === "archive") {
    const useArchive = (archive: AsyncIterable<Uint8Array>) => use({ archive });
    return backups.readArchive(access, { snapshot, sizeBytes }, useArchive, options);
  }
  return backups.withScratch(`root-${metadata.uid}`, async (path) => {
    await backups.restore(access, snapshot, { path, sizeBytes }, options);
    return use({ disk: path });
  });
}
