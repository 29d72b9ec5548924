/** Instances that are made of snapshots or backups: what a new one takes over, and what it must be like for that. */
import type { FieldError } from "../core/errors.ts";
import { formatMib } from "../core/units.ts";
import type { Instance, InstanceStatus } from "../kinds/instance.ts";
import { type Snapshot, snapshotKind } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import type { Volume } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import { type Origin, volumeOf } from "./copied-volume.ts";
import type { World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import type { References } from "./references.ts";
import { findSavedOrigin } from "./saved-origins.ts";
import { isSourceReady } from "./snapshots.ts";
import { takeRoom } from "./storage-pools.ts";

/** Of spec.source; undefined without one. @throws Invalid when it does not fit. */
export async function findOrigin(
  instance: Instance,
  references: References,
  world: World,
  action: string,
): Promise<Origin | undefined> {
  const { snapshot, backup } = instance.spec.source ?? {};
  if (backup !== undefined) return findSavedOrigin(instance, backup, references, world, action);
  if (snapshot === undefined) return undefined;
  const found = await findSnapshot(instance, snapshot, references, action);
  return found && { status: originStatus(found), volumes: copiedVolumes(instance, found, world) };
}

/** The snapshot that the instance shall be made of. @throws Invalid when it does not fit. */
async function findSnapshot(
  { spec }: Instance,
  name: string,
  references: References,
  action: string,
): Promise<Snapshot | undefined> {
  const snapshot = await references.find(snapshotKind, name, "spec.source.snapshot");
  references.check(action);
  if (!snapshot) return undefined;
  const { machine, sizeMib = 0, state } = snapshot.status;
  const path = "spec.source.snapshot";
  const errors: FieldError[] = [];
  if (!machine) {
    errors.push({ path, message: `is "${name}", which is of a volume`, allowed: "snapshots of instances" });
  } else if (!isSourceReady(snapshot)) {
    errors.push({ path, message: `is "${name}", which is ${state}`, allowed: "snapshots that are ready" });
  } else {
    if (spec.type !== machine.type) {
      const message = `is "${spec.type}", and the snapshot is of a ${machine.type}`;
      errors.push({ path: "spec.type", message, allowed: machine.type });
    }
    if (spec.rebuilds > 0) {
      const message = "asks for a root of the image, and spec.source for one of the snapshot";
      errors.push({ path: "spec.rebuilds", message, allowed: "0, or nothing" });
    }
    if (spec.diskMib < sizeMib) {
      const message = `is ${spec.diskMib}, less than the ${formatMib(sizeMib)} of the snapshot's root`;
      errors.push({ path: "spec.diskMib", message, allowed: `${sizeMib} or more` });
    }
  }
  if (errors.length > 0) throw invalid(action, errors);
  return snapshot;
}

function originStatus({ status, metadata }: Snapshot): Partial<InstanceStatus> {
  const { imageDigest, rootUid = "", host = "" } = status;
  return {
    ...(imageDigest === undefined ? {} : { imageDigest }),
    source: { snapshotUid: metadata.uid, rootUid, host },
  };
}

/** New volumes with what the snapshot has of the old ones, for the instance. */
function copiedVolumes(instance: Instance, { metadata, status }: Snapshot, world: World): Volume[] {
  return (status.volumes ?? []).map((part) => {
    const source = { snapshot: metadata.name, volume: part.name };
    return volumeOf(instance, part, { source, host: status.host }, world);
  });
}

/** Room for the new volumes in their pools: one write a pool. @throws CapacityExceeded, Unavailable */
export async function takeRooms(
  volumes: readonly Volume[],
  references: References,
  world: World,
  action: string,
): Promise<Write[]> {
  const sizes = new Map<string, number>();
  for (const { spec } of volumes) {
    if (spec.pool !== undefined) sizes.set(spec.pool, (sizes.get(spec.pool) ?? 0) + spec.sizeMib);
  }
  const writes: Write[] = [];
  for (const [name, mib] of sizes) {
    const pool = await references.find(storagePoolKind, name, "spec.source");
    references.check(action);
    if (pool) writes.push(await takeRoom(world, pool, { mib, allocation: undefined }, action));
  }
  return writes;
}
