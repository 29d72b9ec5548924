import { fromTimestamp, type Instant, toTimestamp } from "../../core/clock.ts";
import {
  type Backup,
  type BackupStatus,
  isRestorable,
  wantsBootTest,
  withVerified,
} from "../../kinds/backup.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import { askedOf } from "./scratch.ts";

export interface BootWorld {
  backup: Backup | undefined;
  /** The test instance. */
  instance: Instance | undefined;
  /** Its volumes, image and network: some are there, or all of them are being deleted already. */
  others: "there" | "leaving" | "gone";
}

export type BootAction =
  | { type: "write"; backup: Backup; change: Partial<BackupStatus>; event?: BootEvent }
  /** The network, then the instance with all that comes with it. What is there is left. */
  | { type: "make"; backup: Backup }
  | { type: "remove-instance"; backup: Backup; instance: Instance }
  /** Volumes, image and network. */
  | { type: "remove-others"; backup: Backup };

export interface BootEvent {
  severity: "normal" | "warning";
  reason: "BackupVerified" | "BackupDamaged";
  message: string;
}

type BootPlan = Plan<BootAction, never>;

const nothing: BootPlan = { status: undefined, actions: [] };

/** From its beginning to the start of the guest: restoring takes as long as there is much. */
export const restoreLimitMs = 6 * 3_600_000;
/** From the start of the guest to its being up. */
export const bootLimitMs = 15 * 60_000;
/** A machine that cannot say more is up when it has run so long. */
export const runsLongEnoughMs = 30_000;
const lookAgainMs = 1_000;

/**
 * The status says that a test has begun before anything of it is made, and stops saying so when nothing of it is left. So a kill
 * at any line leaves either a test that goes on, or one whose rest is removed.
 */
export function planBootTest({ backup, instance, others }: BootWorld, now: Instant): BootPlan {
  if (!backup) return nothing;
  const { metadata, status } = backup;
  const ended = !wantsBootTest(backup) || metadata.deletedAt !== undefined;
  if (ended) {
    if (instance) return planRemoval(backup, instance);
    if (others === "there") {
      return { status: undefined, actions: [{ type: "remove-others", backup }], ...again };
    }
    if (others === "leaving") return { ...nothing, ...again };
    if (status.bootTest === undefined || metadata.deletedAt !== undefined) return nothing;
    return write(backup, { state: "ready", bootTest: undefined });
  }
  // The test that reads comes first, and says more.
  if (!isRestorable(backup) || backup.spec.verifications > status.verifications) return nothing;
  if (status.bootTest === undefined) {
    const message = "is being restored and started for a test";
    return write(backup, { state: "verifying", message, bootTest: { since: toTimestamp(now) } });
  }
  if (!instance) return { status: undefined, actions: [{ type: "make", backup }], ...again };
  const since = fromTimestamp(status.bootTest.since) ?? now;
  const found = judge(backup, instance, { since, now });
  return found ? planResult(backup, found, now) : { ...nothing, ...again };
}

const again = { recheckAfterMs: lookAgainMs };

function planRemoval(backup: Backup, instance: Instance): BootPlan {
  const leaving = instance.metadata.deletedAt !== undefined;
  return {
    status: undefined,
    actions: leaving ? [] : [{ type: "remove-instance", backup, instance }],
    ...again,
  };
}

interface Found {
  up: boolean;
  message: string;
}

/** Undefined as long as it may still come up. */
function judge(
  backup: Backup,
  { status }: Instance,
  { since, now }: { since: Instant; now: Instant },
): Found | undefined {
  const { state, message } = status;
  if (state === "failed") return { up: false, message: `it could not be started: ${message}` };
  if (state === "stopped" || state === "backoff") {
    return { up: false, message: `it ended by itself: ${message}` };
  }
  const startedAt = state === "running" ? fromTimestamp(status.startedAt ?? "") : undefined;
  if (startedAt === undefined) {
    if (now - since < restoreLimitMs) return undefined;
    const hours = restoreLimitMs / 3_600_000;
    return { up: false, message: `it was not restored and started within ${hours} hours: ${message}` };
  }
  if (askedOf(backup) === "runs") {
    if (now - startedAt < runsLongEnoughMs) return undefined;
    const seconds = runsLongEnoughMs / 1000;
    return { up: true, message: `it ran for ${seconds} s; without a guest agent, no more is known` };
  }
  const ready = status.conditions.find(({ type }) => type === "Ready");
  if (ready?.status === "true") return { up: true, message: "" };
  if (now - startedAt < bootLimitMs) return undefined;
  const minutes = bootLimitMs / 60_000;
  return { up: false, message: `it was not up ${minutes} minutes after its start: ${ready?.message ?? ""}` };
}

function planResult(backup: Backup, { up, message }: Found, now: Instant): BootPlan {
  const at = toTimestamp(now);
  const told = message.slice(0, 900);
  const next = {
    status: up ? ("true" as const) : ("false" as const),
    reason: up ? "Booted" : "NotBooted",
    message: told,
  };
  const change: Partial<BackupStatus> = {
    message: up ? "" : `the test start failed: ${told}`,
    conditions: withVerified(backup.status.conditions, next, at),
    bootTests: backup.spec.bootTests,
    observedGeneration: backup.metadata.generation,
    ...(up ? { bootedAt: at } : {}),
  };
  const event: BootEvent = up
    ? {
        severity: "normal",
        reason: "BackupVerified",
        message: `the backup was restored and started for a test${told === "" ? "" : `: ${told}`}`,
      }
    : { severity: "warning", reason: "BackupDamaged", message: `the test start failed: ${told}` };
  return { status: undefined, actions: [{ type: "write", backup, change, event }], ...again };
}

/** It says nothing about the backup that it could not be tested. */
export function notTested(backup: Backup, why: string): Partial<BackupStatus> {
  return {
    message: `was not started for a test: ${why}`.slice(0, 1000),
    bootTests: backup.spec.bootTests,
    observedGeneration: backup.metadata.generation,
  };
}

function write(backup: Backup, change: Partial<BackupStatus>): BootPlan {
  const told = { ...change, observedGeneration: backup.metadata.generation };
  return { status: undefined, actions: [{ type: "write", backup, change: told }], ...again };
}
