import { StrataError } from "../../core/errors.ts";
import type { Backup } from "../../kinds/backup.ts";
import type { AgentContext } from "../agent-context.ts";
import { openRepository } from "./access.ts";
import { ProgressTold } from "./progress-told.ts";

/** Writes the backup's disk into a new file; `tell` gets a sentence now and then. */
export async function restoreInto(
  context: AgentContext,
  backup: Backup,
  path: string,
  tell: (message: string) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const { snapshot, readBytes } = backup.status;
  const { name } = backup.metadata;
  if (snapshot === undefined || readBytes === undefined) {
    throw new StrataError("Conflict", `backup "${name}" is not complete`);
  }
  const { backups, access } = await openRepository(context, backup, signal);
  const percent = (bytes: number) => Math.floor((bytes / Math.max(1, readBytes)) * 100);
  const told = new ProgressTold((bytes) =>
    tell(`is being restored from backup "${name}": ${percent(bytes)} %`),
  );
  await backups.restore(access, snapshot, { path, sizeBytes: readBytes }, { signal, onProgress: told.tell });
  await told.ended();
}
