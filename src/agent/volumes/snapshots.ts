/** Takes and removes the snapshots of this host's volumes. */
import { toTimestamp } from "../../core/clock.ts";
import { toStrataError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { type Snapshot, snapshotKind } from "../../kinds/snapshot.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { siblingKey } from "../views.ts";
import { poolFor } from "./guest-volumes.ts";
import { planSnapshot, type SnapshotAction, type SnapshotWorld } from "./snapshot-plan.ts";

export function createSnapshotReconciler(
  context: AgentContext,
): Reconciler<SnapshotWorld, SnapshotAction, Snapshot["status"]> {
  const { views, disks, client, hostName } = context;
  const finalized = new Set<string>();
  const report = (snapshot: Snapshot, status: Snapshot["status"], signal: AbortSignal) =>
    reportStatus(client, snapshotKind, views.snapshots, snapshot, status, signal);
  return {
    name: "snapshots",
    watches: [{ name: "snapshots", urgent: true, keys: (signal) => views.snapshots.watchKeys(signal) }],
    async observe(key) {
      const found = views.snapshots.get(key);
      const snapshot = found && !finalized.has(found.metadata.uid) ? found : undefined;
      const uid = snapshot?.status.volumeUid;
      const volume = uid === undefined ? undefined : views.volumes.byUid(uid);
      const guest = volume && guestOf(context, volume);
      return { hostName, snapshot, volume: volume !== undefined, guest };
    },
    plan: planSnapshot,
    async execute(action, signal) {
      const { metadata } = action.snapshot;
      switch (action.type) {
        case "take": {
          const taken = await take(context, action, signal);
          await report(action.snapshot, { ...action.snapshot.status, ...taken }, signal);
          return;
        }
        case "remove-disk":
          return disks.remove(metadata.uid, signal);
        case "finalize":
          await client.removeFinalizer(snapshotKind, metadata as Ref, metadata.uid, "agent", { signal });
          finalized.add(metadata.uid);
      }
    },
    async report(_key, { snapshot }, status, signal) {
      if (snapshot) await report(snapshot, status, signal);
    },
    async failed(key, failure, signal) {
      const snapshot = views.snapshots.get(key);
      if (!snapshot || snapshot.status.host !== hostName) return;
      const error = toStrataError(failure.error, `take snapshot "${snapshot.metadata.name}"`);
      const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
      const message = `${error.message}; trying again in ${seconds} s`.slice(0, 1000);
      await report(snapshot, { ...snapshot.status, message }, signal);
    },
  };
}

/** A guest that has it as a mount is kept still with the mount itself. */
function guestOf({ views, drivers }: AgentContext, volume: Volume): SnapshotWorld["guest"] {
  const name = volume.status.instance;
  const holder = name === undefined ? undefined : views.instances.get(siblingKey(instanceKind, volume, name));
  const driver = holder?.status.driver;
  const handle = holder?.status.handle;
  if (driver === undefined || handle === undefined || !isJsonObject(handle)) return undefined;
  return drivers.find(driver)?.volumes?.whileStill ? { driver, handle } : undefined;
}

async function take(
  context: AgentContext,
  { snapshot, guest }: Extract<SnapshotAction, { type: "take" }>,
  signal: AbortSignal,
): Promise<Partial<Snapshot["status"]>> {
  const { disks, drivers, clock } = context;
  const { metadata, status } = snapshot;
  const pool = poolFor(context, status.pool);
  await disks.remove(metadata.uid, signal);
  let stillMs = 0;
  const copy = async () => {
    const begun = clock.monotonicMs();
    const { frozen } = await disks.copyData(status.volumeUid ?? "", metadata.uid, signal, pool);
    stillMs = Math.round(clock.monotonicMs() - begun);
    return frozen ? ("frozen" as const) : ("unused" as const);
  };
  const volumes = guest && drivers.require(guest.driver).volumes;
  let consistency: NonNullable<Snapshot["status"]["consistency"]>;
  if (guest && volumes?.whileStill) {
    const kept = await volumes.whileStill(guest.handle, copy, signal);
    consistency = kept.guest === "idle" ? kept.result : kept.guest === "frozen" ? "frozen" : "crash";
  } else consistency = await copy();
  const observedGeneration = metadata.generation;
  const takenAt = toTimestamp(clock.now());
  const still = consistency === "unused" ? {} : { stillMs };
  return { state: "ready", message: "", consistency, takenAt, observedGeneration, ...still };
}
