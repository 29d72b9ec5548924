/** Has backups made when their schedule says so, tested in time, and removed when nothing keeps them any more. */
import { hasCode, isRetryable, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Backup, backupKind, backupScheduleLabel } from "../../kinds/backup.ts";
import { type BackupSchedule, backupScheduleKind } from "../../kinds/backup-schedule.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import type { Kind } from "../../kinds/kind.ts";
import { CacheIndex } from "../../reconcile/cache.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { rewriteStatus } from "../rewrite-status.ts";
import { planSchedule, type ScheduleAction, type ScheduleWorld } from "./plan.ts";

/** To be created before its caches are filled, because it indexes them. */
export function createScheduleReconciler(
  context: ControllerContext,
): Reconciler<ScheduleWorld, ScheduleAction, never> {
  const { store, verbs } = context;
  const { backups, backupSchedules } = context.caches;
  const madeBy = new CacheIndex(backups, scheduleKeyOf);
  const related = new Hints();
  backups.onChange((_key, next, previous) => {
    const backup = next ?? previous;
    const key = backup && scheduleKeyOf(backup);
    if (key !== undefined && next?.status.state !== previous?.status.state) related.hint(key);
  });
  const change = (schedule: BackupSchedule, status: Partial<BackupSchedule["status"]>) =>
    rewriteStatus(store, backupScheduleKind, backupSchedules, schedule, (current) => ({
      ...current,
      ...status,
    }));

  async function create({ metadata, spec }: BackupSchedule, name: string): Promise<void> {
    const { project = "" } = metadata;
    const labels = { [backupScheduleLabel]: metadata.name };
    const { volume, instance, repository } = spec;
    const of = instance === undefined ? { volume } : { instance };
    try {
      await verbs.create(backupKind, { name, project, labels, spec: { ...of, repository } }, { status: {} });
    } catch (error) {
      if (!hasCode(error, "AlreadyExists")) throw error;
    }
  }

  /** A test of a backup reads its repository as a whole. */
  async function verify({ backup, boot }: Extract<ScheduleAction, { type: "verify" }>): Promise<void> {
    const { verifications, bootTests } = backup.spec;
    const spec = {
      verifications: Math.max(verifications, backup.status.verifications) + 1,
      ...(boot && {
        bootTests: Math.max(bootTests ?? 0, backup.status.bootTests ?? 0) + 1,
        bootCommand: boot.command ?? null,
      }),
    };
    await verbs.patchSpec(backupKind as Kind, backup.metadata as Ref, spec);
  }

  return {
    name: "backup-schedules",
    watches: [
      { name: "schedules", urgent: true, keys: (signal) => backupSchedules.watchKeys(signal) },
      { name: "backups", urgent: true, keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      await backups.whenSynced();
      const schedule = backupSchedules.get(key);
      const made = [...madeBy.keysOf(key)].flatMap((one) => backups.get(one) ?? []);
      return {
        schedule,
        backups: made.filter(
          // An earlier schedule of the same name may have been of something else.
          ({ metadata, spec: { volume, instance } }) =>
            metadata.deletedAt === undefined &&
            volume === schedule?.spec.volume &&
            instance === schedule?.spec.instance,
        ),
      };
    },
    plan: planSchedule,
    async execute(action) {
      switch (action.type) {
        case "create":
          return create(action.schedule, action.name);
        case "delete":
          await verbs.delete(backupKind as Kind, action.backup.metadata as Ref);
          return;
        case "verify":
          return verify(action);
        case "write":
          await change(action.schedule, action.status);
      }
    },
    async failed(key, { error: cause, retryAfterMs }) {
      const schedule = backupSchedules.get(key);
      if (!schedule) return;
      const error = toStrataError(cause, `make backups by schedule "${schedule.metadata.name}"`);
      const seconds = Math.max(1, Math.round(retryAfterMs / 1000));
      const state = isRetryable(error.code) ? schedule.status.state : ("failed" as const);
      await change(schedule, {
        state,
        message: `${error.message}; trying again in ${seconds} s`.slice(0, 1000),
      });
    },
  };
}

function scheduleKeyOf({ metadata }: Backup): string | undefined {
  const name = metadata.labels[backupScheduleLabel];
  return name === undefined
    ? undefined
    : resourceKey(backupScheduleKind, { project: metadata.project ?? "", name });
}
