import { fromTimestamp, type Instant, toTimestamp } from "../../core/clock.ts";
import { type Backup, isRestorable, wantsBootTest } from "../../kinds/backup.ts";
import type { BackupSchedule } from "../../kinds/backup-schedule.ts";
import { keptBackups, lastDue, nextDue } from "../../kinds/backup-times.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface ScheduleWorld {
  schedule: BackupSchedule | undefined;
  /** Those that it made, and that are not being deleted. */
  backups: readonly Backup[];
}

export type ScheduleAction =
  /** `dueAt` gives its name: one that is there already is success. */
  | { type: "create"; schedule: BackupSchedule; name: string }
  | { type: "delete"; backup: Backup }
  /** Asks for a test of the backup, and of its repository as a whole with it; with `boot`, also of its start. */
  | { type: "verify"; backup: Backup; boot: { command: string[] | undefined } | undefined }
  | { type: "write"; schedule: BackupSchedule; status: BackupSchedule["status"] };

type SchedulePlan = Plan<ScheduleAction, never>;

const dayMs = 86_400_000;
/** Timers are no longer than this. */
const maxLookMs = dayMs / 2;
/** Failed ones tell why; more of them would tell nothing new. */
const failedKept = 3;

/**
 * A backup that was due while nobody could take it is made up for once. While one is still being taken, the next waits.
 * Nothing is removed before the backup that replaces it is complete.
 */
export function planSchedule({ schedule, backups }: ScheduleWorld, now: Instant): SchedulePlan {
  if (!schedule || schedule.metadata.deletedAt !== undefined) return { status: undefined, actions: [] };
  const { spec, status, metadata } = schedule;
  const next = nextDue(spec, now);
  const told = {
    ...status,
    ...{ nextDueAt: toTimestamp(next), observedGeneration: metadata.generation },
  };
  const recheckAfterMs = Math.min(next - now, maxLookMs);
  if (spec.suspended) {
    const suspended = { ...told, nextDueAt: undefined, state: "suspended" as const };
    return { status: undefined, actions: written(schedule, suspended), recheckAfterMs };
  }
  const actions: ScheduleAction[] = [];
  const due = lastDue(spec, now);
  const before = fromTimestamp(status.lastDueAt ?? metadata.createdAt) ?? now;
  const busy = backups.some(({ status: { state } }) => state === "pending" || state === "saving");
  if (due > before && !busy) {
    actions.push({ type: "create", schedule, name: backupName(metadata.name, due) });
    told.lastDueAt = toTimestamp(due);
  }
  const verify = planVerification(schedule, backups, now);
  if (verify) {
    actions.push(verify);
    told.lastVerifyAt = toTimestamp(now);
  }
  for (const backup of surplus(schedule, backups)) actions.push({ type: "delete", backup });
  // Last: what was not done is done by the next look.
  actions.push(...written(schedule, { ...told, state: "active", message: "" }));
  return { status: undefined, actions, recheckAfterMs };
}

/** Of the newest that is complete. The days count from the first backup on. */
function planVerification(
  { spec, status, metadata }: BackupSchedule,
  backups: readonly Backup[],
  now: Instant,
): ScheduleAction | undefined {
  if (spec.verifyEveryDays === 0) return undefined;
  const since = fromTimestamp(status.lastVerifyAt ?? metadata.createdAt) ?? now;
  if (now - since < spec.verifyEveryDays * dayMs) return undefined;
  const [newest] = backups.filter((backup) => isRestorable(backup)).sort((a, b) => takenAt(b) - takenAt(a));
  if (!newest || newest.spec.verifications > newest.status.verifications || wantsBootTest(newest)) {
    return undefined;
  }
  const boot = spec.verifyBoot ? { command: spec.bootCommand } : undefined;
  return { type: "verify", backup: newest, boot };
}

/**
 * Complete ones beyond what is kept, and old failures. Those under way stay. What a test found damaged counts for nothing, so
 * that it never pushes out a good one; it goes when it would have gone in any case. Only those of the volume or instance that
 * was saved last: an earlier one of the same name has none to replace the ones that are there.
 */
export function surplus({ spec }: BackupSchedule, made: readonly Backup[]): Backup[] {
  const [last] = [...made].sort((a, b) => (a.metadata.createdAt < b.metadata.createdAt ? 1 : -1));
  const backups = made.filter((one) => subjectOf(one) === (last && subjectOf(last)));
  const complete = backups.filter((backup) => isRestorable(backup));
  const keptOf = (some: readonly Backup[]) => {
    const all = some.map((backup) => ({ name: backup.metadata.name, takenAt: takenAt(backup) }));
    return keptBackups(all, spec.keep, spec.timeZone);
  };
  const kept = keptOf(complete).union(keptOf(complete.filter((backup) => !isDamaged(backup))));
  const failed = backups
    .filter(({ status }) => status.state === "failed")
    .sort((a, b) => (a.metadata.createdAt < b.metadata.createdAt ? 1 : -1));
  const idle = complete.filter(({ status }) => status.state !== "verifying");
  return [...idle.filter(({ metadata }) => !kept.has(metadata.name)), ...failed.slice(failedKept)];
}

function subjectOf({ status }: Backup): string | undefined {
  return status.volumeUid ?? status.instanceUid;
}

function isDamaged({ status }: Backup): boolean {
  return status.conditions.some(({ type, status: is }) => type === "Verified" && is === "false");
}

function takenAt({ status, metadata }: Backup): Instant {
  return fromTimestamp(status.takenAt ?? metadata.createdAt) ?? 0;
}

/** `records-20261128-0230`, in UTC. */
export function backupName(schedule: string, due: Instant): string {
  const digits = toTimestamp(due).replace(/[^0-9]/g, "");
  return `${schedule.slice(0, 49).replace(/-+$/, "")}-${digits.slice(0, 8)}-${digits.slice(8, 12)}`;
}

function written(schedule: BackupSchedule, status: BackupSchedule["status"]): ScheduleAction[] {
  if (JSON.stringify(sorted(status)) === JSON.stringify(sorted(schedule.status))) return [];
  return [{ type: "write", schedule, status }];
}

function sorted(status: object): [string, unknown][] {
  return Object.entries(status)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
