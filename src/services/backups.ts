import { StrataError } from "../core/errors.ts";
import { type Backup, backupKind, isRestorable, savedDisk } from "../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../kinds/backup-repository.ts";
import type { BackupSchedule } from "../kinds/backup-schedule.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed } from "./references.ts";
import { requireSnapshots } from "./snapshots.ts";

type Status = Backup["status"];

/** A backup is taken on the host of what it is of, and outlives that. */
export const backupHooks: KindHooks<Backup["spec"], Backup["status"]> = {
  keptByApply: ["verifications", "bootTests", "bootCommand"],
  async admit(backup, world, action) {
    const { spec, metadata } = backup;
    for (const field of ["verifications", "bootTests"] as const) {
      if (spec[field] === 0) continue;
      const message = "is for backups that are there already";
      throw invalid(action, [{ path: `spec.${field}`, message, allowed: "0, or nothing" }]);
    }
    requireOneSubject(spec, action);
    const references = new References(world, metadata.project ?? "");
    const repository = await references.find(backupRepositoryKind, spec.repository, "spec.repository");
    const status =
      spec.instance === undefined
        ? await ofVolume(spec.volume ?? "", references, action)
        : await ofInstance(spec.instance, references, world, action);
    if (!status || !repository) return {};
    requireReach(repository, status.host ?? "", action);
    return {
      status: { ...backup.status, ...status, repositoryUid: repository.metadata.uid },
      writes: references.writes(),
    };
  },
  async admitUpdate(next, previous, _world, action) {
    const more = next.spec.bootTests > (previous.spec.bootTests ?? 0);
    if ((more || next.spec.verifications > previous.spec.verifications) && !isRestorable(next)) {
      throw new StrataError("Conflict", `cannot ${action}: the backup is ${next.status.state}`);
    }
    if (!more || next.status.machine !== undefined) return [];
    const message = "is for backups of instances; this one is of a volume, which cannot be started";
    throw invalid(action, [{ path: "spec.bootTests", message, allowed: "0, or nothing" }]);
  },
  closing: closeReferences,
  async checkDelete(backup, world, mode) {
    if (mode.withProject) return;
    if (backup.status.bootTest !== undefined) {
      throw new StrataError(
        "Conflict",
        `cannot delete backup "${backup.metadata.name}": it is just being started for a test; try again later`,
      );
    }
    const users = await restorersOf(backup, world);
    refuseWhileUsed(`backup "${backup.metadata.name}"`, users, "it is just being restored; try again later");
  },
};

/** @throws Invalid unless it is of a volume or of an instance. */
function requireOneSubject(
  { volume, instance }: { volume?: string | undefined; instance?: string | undefined },
  action: string,
): void {
  if ((volume === undefined) !== (instance === undefined)) return;
  throw invalid(action, [
    { path: "spec.volume", message: "must be given, or spec.instance: one of the two" },
  ]);
}

async function ofVolume(
  name: string,
  references: References,
  action: string,
): Promise<Partial<Status> | undefined> {
  const volume = await references.peek(volumeKind, name, "spec.volume");
  references.check(action);
  if (!volume) return undefined;
  if (volume.spec.role === "root") {
    const message = `is "${name}", the root volume of instance "${volume.metadata.owner?.name ?? ""}"`;
    throw invalid(action, [{ path: "spec.volume", message, allowed: "spec.instance instead of it" }]);
  }
  const { host, state } = volume.status;
  if (host === undefined || state === "pending" || state === "failed") {
    throw new StrataError("Conflict", `cannot ${action}: there is nothing on volume "${name}" yet`);
  }
  const { sizeMib, fileSystem } = volume.spec;
  return {
    ...{ host, volumeUid: volume.metadata.uid, sizeMib },
    ...(fileSystem === undefined ? {} : { fileSystem }),
  };
}

async function ofInstance(
  name: string,
  references: References,
  world: World,
  action: string,
): Promise<Partial<Status> | undefined> {
  const instance = await references.peek(instanceKind, name, "spec.instance");
  references.check(action);
  if (!instance) return undefined;
  const { host, imageDigest } = instance.status;
  if (host === undefined || imageDigest === undefined) {
    throw new StrataError(
      "Conflict",
      `cannot ${action}: there is nothing on instance "${name}" yet; it has not started so far`,
    );
  }
  await requireSnapshots(instance, host, world, action);
  return {
    ...{ host, imageDigest, machine: instance.spec, instanceUid: instance.metadata.uid },
    sizeMib: instance.spec.diskMib,
  };
}

/** What it is of may be gone by the time; the repository must stay. */
export const backupScheduleHooks: KindHooks<BackupSchedule["spec"], BackupSchedule["status"]> = {
  async admit({ spec, metadata }, world, action) {
    const references = new References(world, metadata.project ?? "");
    const { volume, instance } = spec;
    if (volume !== undefined) await references.peek(volumeKind, volume, "spec.volume");
    const found =
      instance === undefined ? undefined : await references.peek(instanceKind, instance, "spec.instance");
    await references.find(backupRepositoryKind, spec.repository, "spec.repository");
    references.check(action);
    if (found?.status.host !== undefined) await requireSnapshots(found, found.status.host, world, action);
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
  if (spec.lost) {
    throw new StrataError(
      "Conflict",
      `cannot ${action}: backup repository "${metadata.name}" is lost; use another`,
    );
  }
  if (spec.directory === undefined || status.host === host) return;
  throw new StrataError(
    "Conflict",
    `cannot ${action}: what it is of is on host "${host}", and backup repository "${metadata.name}" is a directory of host ` +
      `"${status.host ?? ""}"; use one in S3, or a directory there`,
  );
}

async function restorersOf({ metadata }: Backup, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const volume of world.scan(volumeKind, metadata.project)) {
    if (volume.spec.source?.backup !== metadata.name || volume.status.state !== "pending") continue;
    users.push(`volume "${volume.metadata.name}"`);
  }
  for await (const image of world.scan(imageKind, metadata.project)) {
    const { source } = image.spec;
    if (source.type !== "backup" || source.backup !== metadata.name) continue;
    const { state } = image.status;
    if (state === "pending" || state === "building") users.push(`image "${image.metadata.name}"`);
  }
  return users;
}

/** The backup, complete. Errors go to `references`. @throws Invalid while it is not complete. */
export async function requireBackup(
  name: string,
  references: References,
  path: string,
  action: string,
): Promise<Backup | undefined> {
  const backup = await references.find(backupKind, name, path);
  references.check(action);
  if (!backup || isRestorable(backup)) return backup;
  const message = `is "${name}", which is ${backup.status.state}`;
  throw invalid(action, [{ path, message, allowed: "backups that are ready" }]);
}

/** What a new volume of it has at first; `host` makes it. `volume`: which one, of a backup of an instance. */
export async function findBackup(
  { name, volume }: { name: string; volume: string | undefined },
  references: References,
  action: string,
): Promise<
  { host: string | undefined; sizeMib: number; fileSystem: "ext4" | "xfs" | undefined } | undefined
> {
  const backup = await requireBackup(name, references, "spec.source.backup", action);
  if (!backup) return undefined;
  const { host, instanceUid, volumes = [] } = backup.status;
  const disk = savedDisk(backup, volume);
  if (disk) return { host, sizeMib: disk.sizeMib, fileSystem: disk.fileSystem };
  const path = "spec.source.volume";
  if (instanceUid === undefined) {
    const message = "is for backups of instances; this one is of a volume";
    throw invalid(action, [{ path, message, allowed: "nothing: leave it out" }]);
  }
  const message = volume === undefined ? "must say which: the backup is of an instance" : `is "${volume}"`;
  const allowed = volumes.map((one) => one.name).join(", ") || "none: the instance had no volumes";
  throw invalid(action, [{ path, message, allowed }]);
}
