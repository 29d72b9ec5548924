/**
 * Finds what is on this host and belongs to no resource (any more): guests, disks, networks and balancers that a crash or a forced
 * deletion left behind. The host is looked at first and the API asked afterwards, with a listing of its own, so that
 * what was made in between is known; without an answer, everything stays.
 */
import { describeError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import { type Image, imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { networkKind } from "../../kinds/network.ts";
import { snapshotKind } from "../../kinds/snapshot.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { removeDisk } from "../volumes/remove-disk.ts";
import {
  type Found,
  isStray,
  type Known,
  type OrphanWorld,
  planOrphans,
  type RemoveOrphans,
  type Stray,
  strayId,
} from "./plan.ts";

export function createOrphanReconciler(context: AgentContext): Reconciler<OrphanWorld, RemoveOrphans, never> {
  const hints = new Hints();
  // What an image was made into may be an orphan from then on.
  context.views.images.onChange((_key, next) => {
    if (!next && context.removeUnusedImages) hints.hint("orphans");
  });
  let strays = new Map<string, Stray>();
  return {
    name: "orphans",
    watches: [{ name: "start", keys: (signal) => hints.keys(signal, ["orphans"]) }],
    async observe(_key, signal) {
      const found = await findAll(context);
      const known = await askApi(context, signal);
      const now = context.clock.now();
      const next = new Map<string, Stray>();
      for (const one of found) {
        if (!isStray(one, known)) continue;
        const id = strayId(one);
        next.set(id, { found: one, since: strays.get(id)?.since ?? now });
      }
      strays = next;
      return { strays: [...next.values()] };
    },
    plan: planOrphans,
    execute: (action, signal) => removeAll(context, action.orphans, signal),
  };
}

async function findAll({
  drivers,
  disks,
  networks,
  balancers,
  images,
  removeUnusedImages,
}: AgentContext): Promise<Found[]> {
  const found: Found[] = [];
  for (const driver of drivers.all()) {
    // A driver that never worked here has no guests; one that fails now keeps them.
    if (drivers.fingerprint(driver.name)?.available !== true) continue;
    for (const { uid, handle } of await driver.list()) {
      found.push({ type: "guest", driver: driver.name, uid, handle });
    }
  }
  for (const uid of await disks.list()) found.push({ type: "disk", uid });
  for (const uid of await networks.list()) found.push({ type: "network", uid });
  for (const uid of (await balancers?.list()) ?? []) found.push({ type: "balancer", uid });
  if (removeUnusedImages)
    for (const { digest } of await images.list()) found.push({ type: "image", uid: digest });
  return found;
}

async function askApi({ client, hostName }: AgentContext, signal: AbortSignal): Promise<Known> {
  const [instances, volumes, snapshots, backups, networks, images, balancers] = await Promise.all([
    client.list(instanceKind, { host: hostName }, { signal }),
    client.list(volumeKind, { host: hostName }, { signal }),
    client.list(snapshotKind, { host: hostName }, { signal }),
    client.list(backupKind, { host: hostName }, { signal }),
    client.list(networkKind, {}, { signal }),
    client.list(imageKind, { host: hostName }, { signal }),
    client.list(loadBalancerKind, { host: hostName }, { signal }),
  ]);
  const digests = [
    ...images.items.map(({ status }) => status.digest),
    ...instances.items.map(({ status }) => status.imageDigest),
    ...snapshots.items.map(({ status }) => status.imageDigest),
    ...backups.items.filter(hasCopy).map(({ status }) => status.imageDigest),
  ];
  return {
    instances: new Map(instances.items.map(({ metadata, status }) => [metadata.uid, status.driver])),
    volumes: new Set(
      [
        ...volumes.items,
        ...snapshots.items,
        ...backups.items.filter(hasCopy),
        ...images.items.filter(isBeingTaken),
      ].map(({ metadata }) => metadata.uid),
    ),
    balancers: new Set(balancers.items.map(({ metadata }) => metadata.uid)),
    networks: new Set(networks.items.map(({ metadata }) => metadata.uid)),
    digests: new Set(digests.filter((digest) => digest !== undefined)),
  };
}

/** Of its disks, to read from. */
function hasCopy({ status }: Backup): boolean {
  return status.state === "pending" || status.state === "saving";
}

/** Then the root that it is made of has been copied under its uid. */
function isBeingTaken({ spec, status }: Image): boolean {
  return spec.source.type === "instance" && status.state !== "ready" && status.state !== "failed";
}

/** Each is tried, whatever becomes of the others. @throws the first failure, afterwards. */
async function removeAll(
  context: AgentContext,
  orphans: readonly Found[],
  signal: AbortSignal,
): Promise<void> {
  let failure: { error: unknown } | undefined;
  for (const orphan of orphans) {
    signal.throwIfAborted();
    const { type, uid } = orphan;
    // A guest or a disk that could not be removed may still be using it.
    if (type === "image" && failure) continue;
    try {
      await remove(context, orphan, signal);
      context.logger.warn({ type, uid }, "removed what no resource knows");
    } catch (error) {
      failure ??= { error };
      context.logger.warn({ type, uid, error: describeError(error) }, "cannot remove what no resource knows");
    }
  }
  if (failure) throw failure.error;
}

async function remove(context: AgentContext, orphan: Found, signal: AbortSignal): Promise<void> {
  const { drivers, networks, balancers, images, attachments } = context;
  switch (orphan.type) {
    case "guest":
      return drivers.require(orphan.driver).destroy(orphan.handle, signal);
    case "disk":
      return removeDisk(context, { uid: orphan.uid, of: undefined }, signal);
    case "network":
      attachments.doubt(orphan.uid);
      await networks.remove(orphan.uid, signal);
      attachments.forget(orphan.uid);
      return;
    case "balancer":
      return balancers?.remove(orphan.uid);
    case "image":
      return images.remove(orphan.uid);
  }
}
