/** Looks after the root volumes of this host, as far as their instances do not. */

import { Hints } from "../../core/hints.ts";
import type { Uid } from "../../core/ids.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { type Volume, volumeKind } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { planVolume, type VolumeAction, type VolumeWorld } from "./plan.ts";

/** Nobody waits for what is told here; the starts and ends of guests come first. */
const patienceMs = 1_000;

/** Its guest and so its disk were made; told only once the start, which matters more, is over. */
function isMade({ status }: Instance): boolean {
  return status.handle !== undefined && status.state !== "starting";
}

export function createVolumeReconciler(
  context: AgentContext,
): Reconciler<VolumeWorld, VolumeAction, Volume["status"]> {
  const { views, drivers, disks, client, hostName } = context;
  /** What became of the instance matters to its volume. */
  const related = new Hints();
  const later = (key: string) => context.clock.after(patienceMs, () => related.hint(key));
  const finalized = new Set<string>();
  views.instances.onChange((_key, next, previous) => {
    const uid = (next ?? previous)?.metadata.uid;
    if (uid === undefined || (next && isMade(next) === (previous !== undefined && isMade(previous)))) return;
    for (const key of views.volumesByOwner.keysOf(uid)) later(key);
  });
  context.waiting.onChange((waiter) => {
    const volume = views.volumes.byUid(waiter);
    if (volume?.spec.role === "root") related.hint(views.volumes.keyOf(volume));
  });
  views.volumes.onChange((_key, next, previous) => {
    if (previous && next?.metadata.uid !== previous.metadata.uid) finalized.delete(previous.metadata.uid);
  });

  async function hasGuest(uid: Uid): Promise<boolean> {
    for (const driver of drivers.all()) if (await driver.inspect(uid)) return true;
    return false;
  }

  return {
    name: "volumes",
    watches: [
      { name: "volumes", urgent: true, keys: (signal) => views.volumes.watchKeys(signal) },
      { name: "instances", keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      const found = views.volumes.get(key);
      const ours = found?.spec.role === "root" && found.status.host === hostName;
      const volume = ours && !finalized.has(found.metadata.uid) ? found : undefined;
      const uid = volume?.metadata.owner?.uid;
      const instance = uid === undefined ? undefined : views.instances.byUid(uid);
      const owner = instance ? (isMade(instance) ? "made" : "known") : "absent";
      const leaving = volume?.metadata.deletedAt !== undefined && owner === "absent";
      const waiting = volume !== undefined && context.waiting.has(volume.metadata.uid);
      return { volume, owner, waiting, guest: leaving && uid !== undefined && (await hasGuest(uid as Uid)) };
    },
    plan: planVolume,
    async execute({ type, volume }, signal) {
      const { metadata } = volume;
      if (type === "remove-disk") return disks.remove(metadata.uid, signal);
      await client.removeFinalizer(volumeKind, metadata as Ref, metadata.uid, "agent", { signal });
      finalized.add(metadata.uid);
    },
    async report(_key, { volume }, status, signal) {
      if (volume) await reportStatus(client, volumeKind, views.volumes, volume, status, signal);
    },
    lane: (key) => (views.volumes.get(key)?.metadata.deletedAt === undefined ? "reports" : "deletions"),
  };
}
