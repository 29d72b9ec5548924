/** Carries the copies of a backup's disks to its repository. */
import type { Backups, OperationOptions, RepositoryAccess, Saved } from "../../host/backups/backups.ts";
import { defaultLimits, sanitizeRootArchive } from "../../host/images/root-archive.ts";
import type { Backup, BackupStatus } from "../../kinds/backup.ts";
import type { AgentContext } from "../agent-context.ts";
import { openRepository, rootTagOf, tagOf } from "./access.ts";
import { ProgressTold } from "./progress-told.ts";

type Tell = (change: Partial<BackupStatus>) => Promise<unknown>;

interface Save {
  backups: Backups;
  access: RepositoryAccess;
  backup: Backup;
  tell: Tell;
  signal: AbortSignal;
}

/** What the status says of it once all is saved. What an interrupted call had told of is not saved again. */
export async function saveDisks(
  context: AgentContext,
  backup: Backup,
  tell: Tell,
  signal: AbortSignal,
): Promise<Partial<BackupStatus>> {
  const { backups, access } = await openRepository(context, backup, signal);
  const save: Save = { backups, access, backup, tell, signal };
  const { uid } = backup.metadata;
  const { root, sizeMib } = backup.status;
  if (root !== undefined) return saveInstance(context, save, root);
  const path = await context.disks.dataFile(uid);
  return watched(save, { step: "reading the disk", sizeMib }, (options) =>
    backups.save(access, path, tagOf(backup), options),
  );
}

async function saveInstance(
  { disks }: AgentContext,
  save: Save,
  first: NonNullable<BackupStatus["root"]>,
): Promise<Partial<BackupStatus>> {
  const { backups, access, backup, tell, signal } = save;
  const { uid: snapshot } = backup.metadata;
  const { sizeMib, imageDigest = "" } = backup.status;
  let root = first;
  if (root.snapshot === undefined) {
    const part = { snapshot, disk: root.uid };
    const tag = rootTagOf(backup);
    const saved = await watched(save, { step: "reading the root", sizeMib }, (options) =>
      root.form === "disk"
        ? disks.readRootDisk(part, imageDigest, (disk) => backups.save(access, disk, tag, options), signal)
        : disks.readRoot(
            part,
            imageDigest,
            (archive) => backups.saveArchive(access, acceptable(archive), tag, options),
            signal,
          ),
    );
    root = { ...root, ...saved };
    await tell({ root });
  }
  const volumes = [...(backup.status.volumes ?? [])];
  for (const [index, volume] of volumes.entries()) {
    if (volume.snapshot !== undefined) continue;
    const path = await disks.dataFile({ snapshot, disk: volume.uid });
    const step = `reading volume ${volume.name}`;
    const saved = await watched(save, { step, sizeMib: volume.sizeMib }, (options) =>
      backups.save(access, path, tagOf(backup, volume.name), options),
    );
    volumes[index] = { ...volume, ...saved };
    await tell({ volumes });
  }
  const all = [root, ...volumes];
  const sum = (field: "readBytes" | "addedBytes") => all.reduce((bytes, one) => bytes + (one[field] ?? 0), 0);
  return { root, volumes, readBytes: sum("readBytes"), addedBytes: sum("addedBytes") };
}

/** As it may become an image again: what never could is refused now, not when it is needed. It stays who it is. */
function acceptable(archive: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const facts = { capabilities: new Map<string, string>(), unpackedBytes: 0, entries: 0 };
  const packedBytes = () => Number.POSITIVE_INFINITY;
  return sanitizeRootArchive(archive, { limits: defaultLimits, packedBytes }, facts);
}

/** Of a root, it is not known beforehand how much there is: no more than its disk. */
async function watched(
  { tell, signal }: Save,
  { step, sizeMib = 0 }: { step: string; sizeMib: number | undefined },
  use: (options: OperationOptions) => Promise<Saved>,
): Promise<Saved> {
  const total = Math.max(1, sizeMib * 1024 ** 2);
  const progress = new ProgressTold((bytes) =>
    tell({ progress: { step, fraction: Math.min(1, bytes / total) } }),
  );
  const saved = await use({ signal, onProgress: progress.tell });
  await progress.ended();
  return saved;
}
