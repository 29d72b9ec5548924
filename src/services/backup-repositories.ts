import { StrataError } from "../core/errors.ts";
import { backupKind } from "../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind, hiddenSecret } from "../kinds/backup-repository.ts";
import { backupScheduleKind } from "../kinds/backup-schedule.ts";
import { hostKind } from "../kinds/host.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import type { KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { type Principal, requireOperator } from "./principal.ts";
import { closeReferences, refuseWhileUsed, rewriteGuard, usersInMessage } from "./references.ts";

type Spec = BackupRepository["spec"];

/** What opens a repository; for agents. */
export interface RepositorySecrets {
  key: string;
  secretAccessKey?: string;
}

/**
 * A repository belongs to one project and is looked after by one host. What is in there stays when the resource goes: whoever
 * has the key still has it. Secrets are never shown.
 */
export const backupRepositoryHooks: KindHooks<Spec, BackupRepository["status"]> = {
  keptByApply: ["checks", "lost"],
  async admit(repository, world, action) {
    if (repository.spec.lost) {
      const message = "is for a repository that was there and will not come back";
      throw invalid(action, [{ path: "spec.lost", message, allowed: "false, or nothing" }]);
    }
    const path = repository.spec.directory?.path;
    const status = { ...repository.status, host: await hostFor(world, action) };
    if (path === undefined) return { status };
    // Before the look: of two at once, one is refused.
    const guard = await rewriteGuard(backupRepositoryKind as Kind, "", world);
    await requireOwn(path, world, action);
    return { status, writes: [guard] };
  },
  closing: closeReferences,
  async checkDelete(repository, world, mode) {
    if (mode.withProject) return;
    const { name, project } = repository.metadata;
    const users: string[] = [];
    for (const kind of [backupScheduleKind, backupKind] as const) {
      for await (const { metadata, spec } of world.scan(kind as typeof backupKind, project)) {
        if (spec.repository !== name) continue;
        users.push(`${kind === backupKind ? "backup" : "schedule"} "${metadata.name}"`);
        if (users.length > usersInMessage) break;
      }
    }
    const help = repository.spec.lost
      ? "it is lost: delete them, which leaves what may be there of them"
      : undefined;
    refuseWhileUsed(`backup repository "${name}"`, users, help);
  },
  present: ({ spec, ...rest }) => ({
    ...rest,
    spec: {
      ...spec,
      key: hiddenSecret,
      ...(spec.s3 ? { s3: { ...spec.s3, secretAccessKey: hiddenSecret } } : {}),
    },
  }),
};

/** @throws Forbidden for all but operators; NotFound. */
export async function repositorySecrets(
  principal: Principal,
  ref: Ref,
  world: World,
): Promise<RepositorySecrets> {
  requireOperator(principal, "read the keys of backup repositories");
  const repository = await world.find(backupRepositoryKind, ref);
  if (!repository) {
    throw new StrataError(
      "NotFound",
      `there is no backup repository "${ref.name}" in project "${ref.project}"`,
    );
  }
  const { key, s3 } = repository.spec;
  return { key, ...(s3 ? { secretAccessKey: s3.secretAccessKey } : {}) };
}

/** Two repositories in one directory, or one inside another, would be each other's to damage. */
async function requireOwn(path: string, world: World, action: string): Promise<void> {
  for await (const { spec } of world.scan(backupRepositoryKind, undefined)) {
    const other = spec.directory?.path;
    if (other === undefined || !(`${other}/`.startsWith(`${path}/`) || `${path}/`.startsWith(`${other}/`)))
      continue;
    // Not whose it is: that is another project's own business.
    const message = `is ${path}, where there is a backup repository already`;
    throw conflict(action, { path: "spec.directory.path", message, allowed: "a directory of its own" });
  }
}

/** @throws Unavailable without any. */
async function hostFor(world: World, action: string): Promise<string> {
  const names: string[] = [];
  for await (const { metadata, status } of world.scan(hostKind, undefined)) {
    if (status.state === "ready") return metadata.name;
    names.push(metadata.name);
  }
  const [first] = names;
  if (first !== undefined) return first;
  throw new StrataError(
    "Unavailable",
    `cannot ${action}: there is no host to look after it yet; try again shortly`,
  );
}
