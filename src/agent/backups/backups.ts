/** Takes, tests and removes the backups of this host's volumes and instances. */
import { fromTimestamp, toTimestamp } from "../../core/clock.ts";
import { isRetryable, StrataError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Backup, type BackupStatus, backupKind } from "../../kinds/backup.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { withCondition } from "../../kinds/kind.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { removeDisk } from "../volumes/remove-disk.ts";
import { copyInstance, copyVolume } from "../volumes/snapshots.ts";
import { openRepository, repositoryOf, tagsOf } from "./access.ts";
import { type BackupAction, type BackupWorld, planBackup } from "./backup-plan.ts";
import { isTainted } from "./intact.ts";
import { saveDisks } from "./save.ts";
import { verifyBackup } from "./verify.ts";

export function createBackupReconciler(
  context: AgentContext,
): Reconciler<BackupWorld, BackupAction, BackupStatus> {
  const { views, client, hostName, clock } = context;
  const finalized = new Set<string>();
  const related = new Hints();
  views.backupRepositories.onChange((_key, next, previous) => {
    if (next?.status.state === previous?.status.state && next?.spec.lost === previous?.spec.lost) return;
    const name = (next ?? previous)?.metadata.name;
    for (const key of views.backups.keys()) {
      if (views.backups.get(key)?.spec.repository === name) related.hint(key);
    }
  });
  const report = async (backup: Backup, change: Partial<BackupStatus>, signal: AbortSignal) => {
    const current = views.backups.byUid(backup.metadata.uid) ?? backup;
    await reportStatus(client, backupKind, views.backups, current, { ...current.status, ...change }, signal);
  };

  async function fix(backup: Backup, signal: AbortSignal): Promise<void> {
    const { uid } = backup.metadata;
    // One that was not recorded may be of any moment.
    await removeDisk(context, { uid, of: undefined }, signal);
    const fixed = await copy(backup, signal);
    const told = { state: "saving", message: "is being carried to the repository" } as const;
    const { generation: observedGeneration } = backup.metadata;
    await report(
      backup,
      { ...told, ...fixed, takenAt: toTimestamp(clock.now()), observedGeneration },
      signal,
    );
  }

  async function copy({ metadata, status }: Backup, signal: AbortSignal): Promise<Partial<BackupStatus>> {
    const { uid: to } = metadata;
    const { instanceUid, volumeUid = "" } = status;
    if (instanceUid === undefined) {
      const pool = views.volumes.byUid(volumeUid)?.status.pool;
      const { consistency } = await copyVolume(context, { volumeUid, to, pool }, signal);
      return { consistency };
    }
    // As it is now: it may have been set up anew, or made of another image, since the backup was asked for.
    const { spec: machine, status: now } = views.instances.byUid(instanceUid) ?? {};
    const { imageDigest = status.imageDigest } = now ?? {};
    const form = await rootForm(context, machine, imageDigest);
    const { consistency, rootUid, volumes } = await copyInstance(context, { instanceUid, to }, signal);
    return {
      ...{ consistency, volumes, root: { uid: rootUid, form } },
      ...(machine && { machine }),
      ...(imageDigest !== undefined && { imageDigest }),
    };
  }

  async function save(backup: Backup, signal: AbortSignal): Promise<void> {
    const saved = await saveDisks(context, backup, (change) => report(backup, change, signal), signal);
    const begun = fromTimestamp(backup.status.takenAt ?? "") ?? clock.now();
    const tookMs = Math.max(0, clock.now() - begun);
    const told = isTainted(repositoryOf(context, backup)) ? taint(backup) : { message: "" };
    await report(backup, { ...saved, ...told, state: "ready", tookMs, progress: undefined }, signal);
  }

  /** Until a test shows otherwise. */
  function taint({ status }: Backup): Partial<BackupStatus> {
    const message = "its repository is damaged, and it may need what is damaged; save to another, or test it";
    const next = { type: "Verified", status: "false" as const, reason: "RepositoryDamaged", message };
    return { message, conditions: withCondition(status.conditions, next, toTimestamp(clock.now())) };
  }

  async function forget(backup: Backup, signal: AbortSignal): Promise<void> {
    const { backups, access } = await openRepository(context, backup, signal);
    await backups.forget(access, tagsOf(backup), signal);
  }

  return {
    name: "backups",
    watches: [
      { name: "backups", urgent: true, keys: (signal) => views.backups.watchKeys(signal) },
      { name: "repositories", urgent: true, keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      await views.backupRepositories.whenSynced();
      const found = views.backups.get(key);
      const backup = found && !finalized.has(found.metadata.uid) ? found : undefined;
      return {
        hostName,
        backup,
        repository: backup && repositoryOf(context, backup),
        source: backup !== undefined && isSourceThere(context, backup),
      };
    },
    plan: planBackup,
    async execute({ type, backup }, signal) {
      const { metadata } = backup;
      switch (type) {
        case "fix":
          return fix(backup, signal);
        case "save":
          return save(backup, signal);
        case "drop-copy":
          return removeDisk(context, { uid: metadata.uid, of: undefined }, signal);
        case "verify":
          return report(backup, await verifyBackup(context, backup, signal), signal);
        case "leave": {
          const message = leftMessage(backup);
          context.events.record(backup, { severity: "warning", reason: "Forgotten", message });
          return;
        }
        case "forget":
          return forget(backup, signal);
        case "finalize":
          await client.removeFinalizer(backupKind, metadata as Ref, metadata.uid, "agent", { signal });
          finalized.add(metadata.uid);
      }
    },
    async report(_key, { backup }, status, signal) {
      if (backup) await report(backup, status, signal);
    },
    async failed(key, failure, signal) {
      const backup = views.backups.get(key);
      if (!backup || backup.status.host !== hostName) return;
      const { name, uid, deletedAt } = backup.metadata;
      const error = toStrataError(failure.error, `take backup "${name}"`);
      const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
      if (deletedAt !== undefined || isRetryable(error.code)) {
        const again = `trying again in ${seconds} s`;
        const message = `${error.message.slice(0, 700)}; ${again}${deletedAt === undefined ? "" : lostHelp(backup)}`;
        return report(backup, { message }, signal);
      }
      await giveUp(backup, error, signal);
      if (backup.status.state !== "verifying") await removeDisk(context, { uid, of: undefined }, signal);
    },
    obsolete: (key, { backup }) =>
      backup?.metadata.deletedAt === undefined && views.backups.get(key)?.metadata.deletedAt !== undefined,
    lane: (key) => (views.backups.get(key)?.metadata.deletedAt === undefined ? "backups" : "deletions"),
  };

  /** Trying again would not help. A test that cannot be made leaves the backup as it is. */
  async function giveUp(backup: Backup, error: StrataError, signal: AbortSignal): Promise<void> {
    const message = error.message.slice(0, 1000);
    const { generation } = backup.metadata;
    const tested = backup.status.state === "verifying" || backup.status.state === "ready";
    const { verifications } = backup.spec;
    await report(
      backup,
      tested
        ? { state: "ready", message, verifications, observedGeneration: generation }
        : { state: "failed", message, observedGeneration: generation, progress: undefined },
      signal,
    );
    context.events.record(backup, { severity: "warning", reason: "BackupFailed", message });
  }
}

/**
 * What is saved as files starts by the kernel among them; a machine with a boot loader of its own needs its disk as it is.
 * @throws Unavailable while its image is not there.
 */
async function rootForm(
  { images }: AgentContext,
  machine: Instance["spec"] | undefined,
  imageDigest: string | undefined,
): Promise<"archive" | "disk"> {
  if (machine?.type !== "vm" || imageDigest === undefined) return "archive";
  const image = await images.get(imageDigest);
  // What it needs to start must not be guessed.
  if (!image)
    throw new StrataError(
      "Unavailable",
      "the virtual machine's image is not on this host, or cannot be read",
    );
  return image.boot === "firmware" ? "disk" : "archive";
}

function lostHelp({ spec: { repository } }: Backup): string {
  return `; if the repository is gone for good: \`strata backup-repository set ${repository} --lost yes\``;
}

/** Should the repository come back, whoever has its key finds it by these. */
function leftMessage(backup: Backup): string {
  const { repository } = backup.spec;
  const tags = tagsOf(backup).join(", ");
  return `its backup repository "${repository}" is lost, so nothing was removed there; should it come back, this is left: what restic shows with the tags ${tags}`.slice(
    0,
    1000,
  );
}

function isSourceThere({ views }: AgentContext, { status }: Backup): boolean {
  const { instanceUid, volumeUid = "" } = status;
  if (instanceUid !== undefined) return views.instances.byUid(instanceUid) !== undefined;
  return views.volumes.byUid(volumeUid) !== undefined;
}
