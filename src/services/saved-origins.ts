/** Instances that are made of backups: the image that the saved root becomes, and the volumes. */
import { newUid } from "../core/ids.ts";
import type { Backup } from "../kinds/backup.ts";
import { type Image, imageKind, imageSpecSchema } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { VolumePart } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { requireBackup } from "./backups.ts";
import { type Origin, volumeOf } from "./copied-volume.ts";
import type { World } from "./hooks.ts";
import { ofBackupStatus } from "./images.ts";
import { invalid } from "./parse.ts";
import type { References } from "./references.ts";

/**
 * The saved root holds all of its files and needs no other image: it becomes the one that spec.image names. An image of that
 * name which was made of the same backup is used as it is. @throws Invalid when the instance does not fit.
 */
export async function findSavedOrigin(
  instance: Instance,
  name: string,
  references: References,
  world: World,
  action: string,
): Promise<Origin | undefined> {
  const { spec } = instance;
  const path = "spec.source.backup";
  const backup = await requireBackup(name, references, path, action);
  if (!backup) return undefined;
  const { machine, host, volumes = [] } = backup.status;
  if (!machine) {
    const message = `is "${name}", which is of a volume`;
    throw invalid(action, [{ path, message, allowed: "backups of instances" }]);
  }
  if (spec.type !== machine.type) {
    const message = `is "${spec.type}", and the backup is of a ${machine.type}`;
    throw invalid(action, [{ path: "spec.type", message, allowed: machine.type }]);
  }
  const image = await findImage(instance, backup, references, world, action);
  const parts: VolumePart[] = [];
  for (const volume of volumes) parts.push(await placed(volume, world));
  return {
    status: {},
    volumes: parts.map((part) => {
      const source = { backup: name, volume: part.name };
      return volumeOf(instance, part, { source, host }, world);
    }),
    image,
  };
}

/** A new one; undefined when it is there already. */
async function findImage(
  { spec, metadata }: Instance,
  backup: Backup,
  references: References,
  world: World,
  action: string,
): Promise<Image | undefined> {
  const { project = "", createdAt } = metadata;
  const { name } = backup.metadata;
  const found = await world.find(imageKind, { project, name: spec.image });
  if (!found) {
    return {
      kind: imageKind.name,
      metadata: {
        ...{ name: spec.image, project, uid: newUid(world.random), revision: 0, generation: 1 },
        ...{ labels: {}, createdAt, finalizers: [...imageKind.finalizers] },
      },
      spec: imageSpecSchema.parse({ source: { type: "backup", backup: name } }),
      status: ofBackupStatus(imageKind.initialStatus(), backup),
    };
  }
  await references.find(imageKind, spec.image, "spec.image");
  references.check(action);
  const { source } = found.spec;
  // Younger than this backup: of no other that had its name before.
  const younger = found.metadata.createdAt >= backup.metadata.createdAt;
  if (source.type === "backup" && source.backup === name && younger) return undefined;
  const message = `is "${spec.image}", which is there already and was not made of backup "${name}"`;
  throw invalid(action, [{ path: "spec.image", message, allowed: "a new name: the saved root becomes it" }]);
}

/** In its storage pool where that is still there; else in the host's own directory. */
async function placed(volume: VolumePart, world: World): Promise<VolumePart> {
  const { name, uid, sizeMib, fileSystem, path, pool } = volume;
  const found = pool === undefined ? undefined : await world.find(storagePoolKind, { name: pool });
  const there = found !== undefined && found.metadata.deletedAt === undefined;
  return { name, uid, sizeMib, fileSystem, path, ...(there ? { pool } : {}) };
}
