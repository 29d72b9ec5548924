/** Opens the backup repositories that this host looks after, and reads them as a whole when asked to. */
import { toTimestamp } from "../../core/clock.ts";
import { isRetryable, toStrataError } from "../../core/errors.ts";
import type { Backups } from "../../host/backups/backups.ts";
import { type BackupRepository, backupRepositoryKind } from "../../kinds/backup-repository.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { accessTo } from "./access.ts";
import { intactCondition } from "./intact.ts";
import { planRepository, type RepositoryAction, type RepositoryWorld } from "./repository-plan.ts";

type Status = BackupRepository["status"];

export function createBackupRepositoryReconciler(
  context: AgentContext,
  backups: Backups,
): Reconciler<RepositoryWorld, RepositoryAction, Status> {
  const { views, client, hostName } = context;
  const report = (repository: BackupRepository, status: Status, signal: AbortSignal) =>
    reportStatus(client, backupRepositoryKind, views.backupRepositories, repository, status, signal);

  async function open(repository: BackupRepository, signal: AbortSignal): Promise<void> {
    const { status, metadata } = repository;
    const access = await accessTo(context, repository, signal);
    const repositoryId = await backups.open(access, status.repositoryId, signal);
    const observedGeneration = metadata.generation;
    await report(
      repository,
      { ...status, state: "ready", message: "", repositoryId, observedGeneration },
      signal,
    );
  }

  async function check(repository: BackupRepository, signal: AbortSignal): Promise<void> {
    const { status, spec, metadata } = repository;
    const access = await accessTo(context, repository, signal);
    await report(repository, { ...status, message: "all of it is being read" }, signal);
    const examined = await backups.examine(access, signal);
    const { intact } = examined;
    const now = context.clock.now();
    const found = intactCondition(status.conditions, examined, now);
    const current = views.backupRepositories.get(views.backupRepositories.keyOf(repository)) ?? repository;
    await report(
      current,
      {
        ...current.status,
        ...{
          message: "",
          checks: spec.checks,
          checkedAt: toTimestamp(now),
          observedGeneration: metadata.generation,
        },
        conditions: found.conditions,
      },
      signal,
    );
    context.events.record(repository, {
      severity: intact ? "normal" : "warning",
      reason: intact ? "RepositoryIntact" : "RepositoryDamaged",
      message: intact ? "all of the backup repository was read and is as it was written" : found.message,
    });
  }

  return {
    name: "backup-repositories",
    watches: [
      { name: "repositories", urgent: true, keys: (signal) => views.backupRepositories.watchKeys(signal) },
    ],
    async observe(key) {
      return { hostName, repository: views.backupRepositories.get(key) };
    },
    plan: planRepository,
    async report(_key, { repository }, status, signal) {
      if (repository) await report(repository, status, signal);
    },
    execute: ({ type, repository }, signal) =>
      type === "open" ? open(repository, signal) : check(repository, signal),
    async failed(key, { error: cause, retryAfterMs }, signal) {
      const repository = views.backupRepositories.get(key);
      if (!repository || repository.status.host !== hostName) return;
      const error = toStrataError(cause, `look after backup repository "${repository.metadata.name}"`);
      const { status, spec, metadata } = repository;
      const final = !isRetryable(error.code);
      const again = final ? "" : `; trying again in ${Math.max(1, Math.round(retryAfterMs / 1000))} s`;
      const next = {
        ...status,
        message: `${error.message}${again}`.slice(0, 1000),
        // A check that failed says nothing about what is in there.
        ...(status.state === "ready" && spec.checks > status.checks ? {} : { state: "failed" as const }),
        ...(final ? { observedGeneration: metadata.generation, checks: spec.checks } : {}),
      };
      await report(repository, next, signal);
    },
  };
}
