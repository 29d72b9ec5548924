import { StrataError } from "../../core/errors.ts";
import type { Backups, RepositoryAccess } from "../../host/backups/backups.ts";
import type { Backup } from "../../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../../kinds/backup-repository.ts";
import type { Ref } from "../../kinds/keys.ts";
import type { AgentContext } from "../agent-context.ts";
import { siblingKey } from "../views.ts";

/** What opens the repository; its secrets are asked for each time, and kept nowhere. */
export async function accessTo(
  { client }: AgentContext,
  { metadata, spec }: BackupRepository,
  signal: AbortSignal,
): Promise<RepositoryAccess> {
  const { key, secretAccessKey = "" } = await client.repositorySecrets(metadata as Ref, { signal });
  const { uid } = metadata;
  if (spec.directory) return { uid, key, place: { type: "directory", path: spec.directory.path } };
  if (!spec.s3) throw new StrataError("Internal", `backup repository "${metadata.name}" is nowhere`);
  return { uid, key, place: { type: "s3", ...spec.s3, secretAccessKey } };
}

/** Undefined when it is gone, or another one has its name. */
export function repositoryOf({ views }: AgentContext, backup: Backup): BackupRepository | undefined {
  const found = views.backupRepositories.get(
    siblingKey(backupRepositoryKind, backup, backup.spec.repository),
  );
  return found?.metadata.uid === backup.status.repositoryUid ? found : undefined;
}

/** @throws Unavailable while it cannot be used. */
export async function openRepository(
  context: AgentContext,
  backup: Backup,
  signal: AbortSignal,
): Promise<{ backups: Backups; access: RepositoryAccess }> {
  const { backups } = context;
  const repository = repositoryOf(context, backup);
  const { repository: name } = backup.spec;
  if (!backups || !repository)
    throw new StrataError("Unavailable", `backup repository "${name}" is not known here`);
  const { state, message } = repository.status;
  if (state !== "ready")
    throw new StrataError("Unavailable", `backup repository "${name}" is ${state}: ${message}`);
  return { backups, access: await accessTo(context, repository, signal) };
}

/** In the repository, what was saved for it: of a volume; of an instance its root, and each of its volumes. */
export function tagsOf(backup: Backup): string[] {
  const { root, volumes = [] } = backup.status;
  if (root === undefined) return [tagOf(backup)];
  return [rootTagOf(backup), ...volumes.map(({ name }) => tagOf(backup, name))];
}

export function tagOf({ metadata }: Backup, volume?: string): string {
  return `backup-${metadata.uid}${volume === undefined ? "" : `-volume-${volume}`}`;
}

export function rootTagOf({ metadata }: Backup): string {
  return `backup-${metadata.uid}-root`;
}
