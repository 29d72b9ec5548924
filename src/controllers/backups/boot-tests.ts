/**
 * Restores and starts backups of instances for a test, in a network without a way out, tells what came of it, and removes all of
 * it again. Nothing is remembered here: what is there is looked up by names that only the backup's test has.
 */
import { hasCode, isRetryable, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Backup, type BackupStatus, backupKind, wantsBootTest } from "../../kinds/backup.ts";
import { imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { fromStored } from "../../kinds/stored.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { rewriteStatus } from "../rewrite-status.ts";
import { type BootAction, type BootWorld, notTested, planBootTest } from "./boot-plan.ts";
import { bootTestLabel, scratchName, scratchNetworkSpec, scratchSpec, scratchVolumes } from "./scratch.ts";

/** To be created before its caches are filled. */
export function createBootTestReconciler(
  context: ControllerContext,
): Reconciler<BootWorld, BootAction, never> {
  const { store, verbs, caches } = context;
  const { backups, instances } = caches;
  const related = new Hints();
  backups.onChange((key, next) => {
    if (next && isTested(next)) related.hint(key);
  });
  instances.onChange((_key, next, previous) => {
    const { project = "", labels } = (next ?? previous)?.metadata ?? {};
    const name = labels?.[bootTestLabel];
    if (name !== undefined) related.hint(resourceKey(backupKind, { project, name }));
  });
  const change = (backup: Backup, status: Partial<BackupStatus>) =>
    rewriteStatus(store, backupKind, backups, backup, (current) => ({ ...current, ...status }));

  return {
    name: "boot-tests",
    watches: [{ name: "backups", urgent: true, keys: (signal) => related.keys(signal) }],
    async observe(key) {
      await Promise.all([backups.whenSynced(), instances.whenSynced()]);
      const backup = backups.get(key);
      if (!backup || !isTested(backup)) return { backup: undefined, instance: undefined, others: "gone" };
      const project = backup.metadata.project ?? "";
      const instance = instances.get(resourceKey(instanceKind, { project, name: scratchName(backup) }));
      return { backup, instance, others: await lookForOthers(context, backup) };
    },
    plan: planBootTest,
    async execute(action) {
      const { backup } = action;
      switch (action.type) {
        case "write":
          await change(backup, action.change);
          if (action.event) await verbs.recordEvent(backup, action.event);
          return;
        case "make":
          return make(context, backup);
        case "remove-instance": {
          const { instance } = action;
          const left = await remove(context, backup, instanceKind as Kind, scratchName(backup));
          const key = instances.keyOf(instance);
          if (left) instances.learn(key, left as Instance);
          else instances.delete(key, instance.metadata.uid);
          return;
        }
        case "remove-others":
          for (const { kind, name } of othersOf(backup)) await remove(context, backup, kind, name);
      }
    },
    async failed(key, { error: cause, world }) {
      const backup = backups.get(key);
      if (!backup || !world?.backup || !wantsBootTest(backup) || hasCode(cause, "Conflict")) return;
      const error = toStrataError(cause, `start backup "${backup.metadata.name}" for a test`);
      const final = !isRetryable(error.code) || error.code === "CapacityExceeded";
      if (final && !world.instance) await change(backup, notTested(backup, error.message));
    },
  };
}

function isTested(backup: Backup): boolean {
  return wantsBootTest(backup) || backup.status.bootTest !== undefined;
}

function othersOf(backup: Backup): { kind: Kind; name: string }[] {
  const name = scratchName(backup);
  return [
    ...scratchVolumes(backup).map((volume) => ({ kind: volumeKind as Kind, name: volume })),
    { kind: imageKind as Kind, name },
    { kind: networkKind as Kind, name },
  ];
}

async function lookForOthers({ store }: ControllerContext, backup: Backup): Promise<BootWorld["others"]> {
  const { project = "" } = backup.metadata;
  let leaving = false;
  for (const { kind, name } of othersOf(backup)) {
    const entry = await store.get(resourceKey(kind, { project, name }));
    if (!entry) continue;
    if (fromStored<Resource>(entry).metadata.deletedAt === undefined) return "there";
    leaving = true;
  }
  return leaving ? "leaving" : "gone";
}

async function make({ verbs, caches }: ControllerContext, backup: Backup): Promise<void> {
  const { machine } = backup.status;
  const { project = "", name: of } = backup.metadata;
  if (!machine) return;
  const draft = { name: scratchName(backup), project, labels: { [bootTestLabel]: of } };
  const origin = { status: {} };
  const create = async <S, T>(kind: Kind<S, T>, spec: object) => {
    try {
      return await verbs.create(kind, { ...draft, spec }, origin);
    } catch (error) {
      if (hasCode(error, "AlreadyExists")) return undefined;
      throw error;
    }
  };
  await create(networkKind, scratchNetworkSpec);
  const made = await create(instanceKind, scratchSpec(backup, machine));
  if (made) caches.instances.learn(caches.instances.keyOf(made), made);
}

/** As it waits to be gone; undefined when it is. */
async function remove(
  { verbs }: ControllerContext,
  backup: Backup,
  kind: Kind,
  name: string,
): Promise<Resource | undefined> {
  const { project = "" } = backup.metadata;
  try {
    return await verbs.delete(kind, { project, name });
  } catch (error) {
    if (hasCode(error, "NotFound")) return undefined;
    throw error;
  }
}
