import type { BackupSession } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { readArchivedFile } from "../../host/backups/archived-file.ts";
import type { Backups } from "../../host/backups/backups.ts";
import { readRestoredFile, readRestoredRootFile } from "../../host/backups/restored-disk.ts";
import { type Backup, isRestorable, type SavedDisk, savedDisk, savedRoot } from "../../kinds/backup.ts";
import type { AgentContext } from "../agent-context.ts";
import { openRepository } from "../backups/access.ts";
import { backupFileParameters, readParameters } from "./parameters.ts";
import { sendWhole } from "./send-whole.ts";
import type { SessionEnds } from "./splice.ts";

/** Each takes a whole disk's space, so there is one at a time on a host. */
const busy = new WeakSet<Backups>();

/**
 * Sends one file of a backup: the disk is restored into a scratch file, which goes away with the session. A root that is saved
 * as an archive is read through until the file comes; the rest is read all the same, since only then is it known to be whole.
 * @throws NotFound without such a backup or file; Unavailable while another
 * is being sent.
 */
export async function serveBackupFile(
  context: AgentContext,
  { id, backup: { project, name, uid }, parameters }: BackupSession,
  { channel, inbox }: SessionEnds,
  signal: AbortSignal,
): Promise<void> {
  const { path: wanted, volume } = readParameters(backupFileParameters, "file", parameters);
  const backup = context.views.backups.find({ project, name });
  if (backup?.metadata.uid !== uid || !isRestorable(backup)) {
    throw new StrataError("NotFound", `backup "${name}" is not on host ${context.hostName}`);
  }
  inbox.open(undefined);
  const { backups, access } = await openRepository(context, backup, signal);
  const root = volume === undefined ? savedRoot(backup) : undefined;
  if (root?.form === "archive") {
    const saved = { snapshot: root.snapshot, sizeBytes: root.readBytes };
    await sendWhole(channel, signal, (use) =>
      backups.readArchive(access, saved, (bytes) => readArchivedFile(bytes, wanted, use), { signal }),
    );
    return;
  }
  const disk = root ?? requireDisk(backup, volume);
  const step = (fraction: number) =>
    channel.sendControl({ type: "progress", step: "restoring the disk", fraction });
  if (busy.has(backups)) {
    throw new StrataError(
      "Unavailable",
      `host ${context.hostName} is restoring a disk for another file of a backup; try again when that is done, or restore ` +
        "the backup to a new volume or instance",
    );
  }
  busy.add(backups);
  using _done = { [Symbol.dispose]: () => busy.delete(backups) };
  await backups.withScratch(`file-${id.slice(0, 32).toLowerCase()}`, async (path) => {
    step(0);
    const { snapshot, readBytes: sizeBytes } = disk;
    const onProgress = (bytes: number) => step(bytes / Math.max(1, sizeBytes));
    await backups.restore(access, snapshot, { path, sizeBytes }, { signal, onProgress });
    await sendWhole(channel, signal, (use) =>
      "form" in disk
        ? readRestoredRootFile(path, wanted, use, signal)
        : readRestoredFile({ path, fileSystem: disk.fileSystem }, wanted, use, signal),
    );
  });
}

/** @throws Invalid for a volume that is not in there. */
function requireDisk(backup: Backup, volume: string | undefined): SavedDisk {
  const disk = savedDisk(backup, volume);
  if (disk) return disk;
  const names = (backup.status.volumes ?? []).map(({ name }) => name).join(", ") || "none";
  throw new StrataError(
    "Invalid",
    `there is no volume "${volume ?? ""}" in backup "${backup.metadata.name}"; volumes of instances in it: ${names}`,
  );
}
