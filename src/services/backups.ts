import { StrataError } from "../core/errors.ts";
import { type Backup, backupKind, isRestorable } from "../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../kinds/backup-repository.ts";
import type { BackupSchedule } from "../kinds/backup-schedule.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed } from "./references.ts";

/** A backup is taken on its volume's host, and outlives the volume. */
export const backupHooks: KindHooks<Backup["spec"], Backup["status"]> = {
  keptByApply: ["verifications"],
  async admit(backup, world, action) {
    const { spec, metadata } = backup;
    if (spec.verifications > 0) {
      const message = "is for backups that are there already";
      throw invalid(action, [{ path: "spec.verifications", message, allowed: "0, or nothing" }]);
    }
    const references = new References(world, metadata.project ?? "");
    const volume = await references.peek(volumeKind, spec.volume, "spec.volume");
    const repository = await references.find(backupRepositoryKind, spec.repository, "spec.repository");
    references.check(action);
    if (!volume || !repository) return {};
    if (volume.spec.role === "root") {
      const message = `is "${spec.volume}", the root volume of an instance`;
      throw invalid(action, [{ path: "spec.volume", message, allowed: "volumes that were created as such" }]);
    }
    const { host, state } = volume.status;
    if (host === undefined || state === "pending" || state === "failed") {
      throw new StrataError("Conflict", `cannot ${action}: there is nothing on volume "${spec.volume}" yet`);
    }
    requireReach(repository, host, action);
    const { sizeMib, fileSystem } = volume.spec;
    return {
      status: {
        ...backup.status,
        ...{ host, volumeUid: volume.metadata.uid, repositoryUid: repository.metadata.uid, sizeMib },
        ...(fileSystem === undefined ? {} : { fileSystem }),
      },
      writes: references.writes(),
    };
  },
  async admitUpdate(next, previous, _world, action) {
    if (next.spec.verifications > previous.spec.verifications && !isRestorable(next)) {
      throw new StrataError("Conflict", `cannot ${action}: the backup is ${next.status.state}`);
    }
    return [];
  },
  closing: closeReferences,
  async checkDelete(backup, world, mode) {
    if (mode.withProject) return;
    const users = await restorersOf(backup, world);
    refuseWhileUsed(`backup "${backup.metadata.name}"`, users, "it is just being restored; try again later");
  },
};

/** The volume may be gone by the time; the repository must stay. */
export const backupScheduleHooks: KindHooks<BackupSchedule["spec"], BackupSchedule["status"]> = {
  async admit({ spec, metadata }, world, action) {
    const references = new References(world, metadata.project ?? "");
    await references.peek(volumeKind, spec.volume, "spec.volume");
    await references.find(backupRepositoryKind, spec.repository, "spec.repository");
    references.check(action);
    return { writes: references.writes() };
  },
  async admitUpdate({ spec, metadata }, _previous, world, action) {
    const references = new References(world, metadata.project ?? "");
    await references.find(backupRepositoryKind, spec.repository, "spec.repository");
    references.check(action);
    return references.writes();
  },
};

/** @throws Conflict when the host cannot write there. */
function requireReach({ metadata, spec, status }: BackupRepository, host: string, action: string): void {
  if (spec.directory === undefined || status.host === host) return;
  throw new StrataError(
    "Conflict",
    `cannot ${action}: the volume is on host "${host}", and backup repository "${metadata.name}" is a directory of host ` +
      `"${status.host ?? ""}"; use one in S3, or a directory there`,
  );
}

async function restorersOf({ metadata }: Backup, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const volume of world.scan(volumeKind, metadata.project)) {
    if (volume.spec.source?.backup !== metadata.name || volume.status.state !== "pending") continue;
    users.push(`volume "${volume.metadata.name}"`);
  }
  return users;
}

/** What a new volume of it has at first; `host` makes it. @throws Invalid while it is not complete. */
export async function findBackup(
  name: string,
  references: References,
  action: string,
): Promise<
  { host: string | undefined; sizeMib: number; fileSystem: "ext4" | "xfs" | undefined } | undefined
> {
  const path = "spec.source.backup";
  const backup = await references.find(backupKind, name, path);
  references.check(action);
  if (!backup) return undefined;
  const { status } = backup;
  if (!isRestorable(backup)) {
    const message = `is "${name}", which is ${status.state}`;
    throw invalid(action, [{ path, message, allowed: "backups that are ready" }]);
  }
  const { host, sizeMib = 0, fileSystem } = status;
  return { host, sizeMib, fileSystem };
}
