/** Instances that are made of snapshots: what a new one takes over, and what it must be like for that. */
import type { FieldError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { formatMib } from "../core/units.ts";
import type { Instance, InstanceStatus } from "../kinds/instance.ts";
import { type Snapshot, snapshotKind } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { type Volume, volumeKind, volumeSpecSchema } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import type { World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import type { References } from "./references.ts";
import { isSourceReady } from "./snapshots.ts";
import { takeRoom } from "./storage-pools.ts";

const maxNameLength = 63;

/** The snapshot that the instance shall be made of. @throws Invalid when it does not fit. */
export async function findOrigin(
  { spec }: Instance,
  references: References,
  action: string,
): Promise<Snapshot | undefined> {
  if (spec.source === undefined) return undefined;
  const { snapshot: name } = spec.source;
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

export function originStatus({ status, metadata }: Snapshot): Partial<InstanceStatus> {
  const { imageDigest, rootUid = "", host = "" } = status;
  return {
    ...(imageDigest === undefined ? {} : { imageDigest }),
    source: { snapshotUid: metadata.uid, rootUid, host },
  };
}

/** New volumes with what the snapshot has of the old ones, for the instance: they outlive it, as volumes do. */
export function copiedVolumes(instance: Instance, { metadata, status }: Snapshot, world: World): Volume[] {
  const { name, project = "", createdAt } = instance.metadata;
  return (status.volumes ?? []).map((part) => ({
    kind: volumeKind.name,
    metadata: {
      name: `${name}-${part.name}`.slice(0, maxNameLength).replace(/-+$/, ""),
      project,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt,
      finalizers: [...volumeKind.finalizers],
    },
    spec: volumeSpecSchema.parse({
      sizeMib: part.sizeMib,
      ...(part.fileSystem === undefined ? {} : { fileSystem: part.fileSystem }),
      source: { snapshot: metadata.name, volume: part.name },
      instance: name,
      ...(part.pool === undefined ? {} : { pool: part.pool }),
      path: part.path ?? `/mnt/${part.name}`,
    }),
    status: {
      ...volumeKind.initialStatus(),
      ...(status.host === undefined ? {} : { host: status.host }),
      ...(part.pool === undefined ? {} : { pool: part.pool }),
      message: "its source is being copied",
    },
  }));
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
    const pool = await references.find(storagePoolKind, name, "spec.source.snapshot");
    references.check(action);
    if (pool) writes.push(await takeRoom(world, pool, { mib, allocation: undefined }, action));
  }
  return writes;
}
