import { type FieldError, StrataError } from "../core/errors.ts";
import { hostKind } from "../kinds/host.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { isRollingBack, type Snapshot, type VolumePart } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed } from "./references.ts";

type Status = Snapshot["status"];

/** A snapshot is of what a volume or an instance has on its host; it outlives both. */
export const snapshotHooks: KindHooks<Snapshot["spec"], Status> = {
  // A stack file does not say how often somebody went back.
  keptByApply: ["rollbacks"],
  async admit(snapshot, world, action) {
    const { volume, instance, rollbacks, memory } = snapshot.spec;
    if ((volume === undefined) === (instance === undefined)) {
      const message = `must be given, or spec.instance: one of the two`;
      throw invalid(action, [{ path: "spec.volume", message }]);
    }
    if (rollbacks > 0) {
      const message = "is for snapshots that are there already";
      throw invalid(action, [{ path: "spec.rollbacks", message, allowed: "0, or nothing" }]);
    }
    if (memory && instance === undefined) {
      const message = "is for snapshots of instances: a volume has none";
      throw invalid(action, [{ path: "spec.memory", message, allowed: "false, or spec.instance" }]);
    }
    const references = new References(world, snapshot.metadata.project ?? "");
    const status =
      instance === undefined
        ? await ofVolume(volume ?? "", references, action)
        : await ofInstance(instance, references, { world, memory, action });
    return { status: { ...snapshot.status, ...status }, writes: references.writes() };
  },
  async admitUpdate(next, previous, world, action) {
    if (next.spec.rollbacks > previous.spec.rollbacks) await checkRollback(next, world, action);
    return [];
  },
  closing: closeReferences,
  async checkDelete(snapshot, world, mode) {
    if (mode.withProject) return;
    const { metadata } = snapshot;
    const what = `snapshot "${metadata.name}"`;
    if (isRollingBack(snapshot)) {
      throw new StrataError(
        "Conflict",
        `cannot delete ${what}: disks are just being put back to it; try again later`,
      );
    }
    refuseWhileUsed(what, await copiersOf(snapshot, world), "it is just being copied; try again later");
  },
};

async function ofVolume(name: string, references: References, action: string): Promise<Partial<Status>> {
  const volume = await references.peek(volumeKind, name, "spec.volume");
  references.check(action);
  if (!volume) return {};
  if (volume.spec.role === "root") {
    const { owner } = volume.metadata;
    const message = `is "${name}", the root volume of instance "${owner?.name ?? ""}"`;
    throw invalid(action, [{ path: "spec.volume", message, allowed: "spec.instance instead of it" }]);
  }
  const { host } = volume.status;
  if (host === undefined || volume.status.state === "pending") {
    throw new StrataError(
      "Conflict",
      `cannot ${action}: there is nothing on volume "${name}" yet; attach it to an instance first`,
    );
  }
  const { fileSystem, sizeMib } = volume.spec;
  const { pool } = volume.status;
  if (pool !== undefined) await references.find(storagePoolKind, pool, "spec.volume");
  references.check(action);
  return {
    ...{ host, volumeUid: volume.metadata.uid, sizeMib },
    ...(fileSystem === undefined ? {} : { fileSystem }),
    ...(pool === undefined ? {} : { pool }),
  };
}

async function ofInstance(
  name: string,
  references: References,
  { world, memory, action }: { world: World; memory: boolean; action: string },
): Promise<Partial<Status>> {
  const instance = await references.peek(instanceKind, name, "spec.instance");
  references.check(action);
  if (!instance) return {};
  const { host, imageDigest } = instance.status;
  if (host === undefined || imageDigest === undefined) {
    throw new StrataError(
      "Conflict",
      `cannot ${action}: there is nothing on instance "${name}" yet; it has not started so far`,
    );
  }
  await requireSnapshots(instance, host, world, action);
  if (memory) await requireMemory(instance, host, world, action);
  for await (const volume of world.scan(volumeKind, instance.metadata.project)) {
    const { pool } = volume.status;
    if (volume.spec.instance !== name || pool === undefined) continue;
    await references.find(storagePoolKind, pool, "spec.instance");
  }
  references.check(action);
  return {
    ...{ host, imageDigest, machine: instance.spec, instanceUid: instance.metadata.uid },
    sizeMib: instance.spec.diskMib,
  };
}

/** What a driver lacks is said at once, by what its host's agent has declared. */
export async function requireSnapshots(
  instance: Instance,
  host: string,
  world: World,
  action: string,
): Promise<void> {
  const { driver } = instance.status;
  if (driver === undefined) return;
  const found = (await world.find(hostKind, { name: host }))?.status.drivers[driver];
  if (found === undefined || found.abilities.includes("snapshots")) return;
  throw new StrataError(
    "Unsupported",
    `cannot ${action}: instance "${instance.metadata.name}" runs with the driver ${driver}, which has no snapshots; ` +
      "use an instance of another driver",
  );
}

async function requireMemory(
  { status, spec, metadata }: Instance,
  host: string,
  world: World,
  action: string,
): Promise<void> {
  const { driver = "" } = status;
  const found = (await world.find(hostKind, { name: host }))?.status.drivers[driver];
  if (found ? found.abilities.includes("memory") : spec.type === "vm") return;
  throw invalid(action, [
    {
      path: "spec.memory",
      message: `is for virtual machines; "${metadata.name}" is a ${spec.type}${driver && ` of the driver ${driver}`}, whose memory cannot be kept`,
      allowed: "false",
    },
  ]);
}

/** @throws Conflict when there is nothing that could be put back. */
async function checkRollback(snapshot: Snapshot, world: World, action: string): Promise<void> {
  const { spec, status, metadata } = snapshot;
  const { project = "" } = metadata;
  const refuse = (why: string) => new StrataError("Conflict", `cannot ${action}: ${why}`);
  if (!isSourceReady(snapshot)) throw refuse(`the snapshot is ${status.state}`);
  const advice = `make a new one of it instead (\`strata snapshot restore ${metadata.name} NAME\`)`;
  if (spec.instance === undefined) {
    const volume = await world.find(volumeKind, { project, name: spec.volume ?? "" });
    const same = volume?.metadata.uid === status.volumeUid && volume?.metadata.deletedAt === undefined;
    if (!same) throw refuse(`the volume "${spec.volume}" is gone; ${advice}`);
    return;
  }
  const instance = await world.find(instanceKind, { project, name: spec.instance });
  if (instance?.metadata.uid !== status.instanceUid || instance?.metadata.deletedAt !== undefined) {
    throw refuse(`the instance "${spec.instance}" is gone; ${advice}`);
  }
  if (instance?.status.imageDigest !== status.imageDigest) {
    throw refuse(`the instance "${spec.instance}" was made anew from another image since; ${advice}`);
  }
}

/** Who is being made of it at this moment. */
async function copiersOf({ metadata }: Snapshot, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const volume of world.scan(volumeKind, metadata.project)) {
    if (volume.spec.source?.snapshot !== metadata.name || volume.status.state !== "pending") continue;
    users.push(`volume "${volume.metadata.name}"`);
  }
  for await (const instance of world.scan(instanceKind, metadata.project)) {
    if (instance.spec.source?.snapshot !== metadata.name || instance.status.handle !== undefined) continue;
    users.push(`instance "${instance.metadata.name}"`);
  }
  return users;
}

/** What a snapshot has for a new volume: the host, and the size and file system of what is in there. */
export function partOf(
  snapshot: Snapshot,
  name: string | undefined,
): { part: Pick<VolumePart, "sizeMib" | "fileSystem" | "pool"> } | { error: FieldError } {
  const { status, metadata } = snapshot;
  if (!isSourceReady(snapshot)) {
    const message = `is "${metadata.name}", which is ${status.state}`;
    return { error: { path: "spec.source.snapshot", message, allowed: "snapshots that are ready" } };
  }
  const parts = status.volumes ?? [];
  const path = "spec.source.volume";
  if (status.instanceUid === undefined) {
    if (name === undefined) {
      const { sizeMib = 0, fileSystem, pool } = status;
      return { part: { sizeMib, fileSystem, pool } };
    }
    const message = "is for snapshots of instances; this one is of a volume";
    return { error: { path, message, allowed: "nothing: leave it out" } };
  }
  const part = parts.find((one) => one.name === name);
  if (part) return { part };
  const message = name === undefined ? "must say which: the snapshot is of an instance" : `is "${name}"`;
  const allowed = parts.map((one) => one.name).join(", ") || "none: the instance had no volumes";
  return { error: { path, message, allowed } };
}

export function isSourceReady(snapshot: Snapshot): boolean {
  return snapshot.status.state === "ready" || snapshot.status.state === "rolling-back";
}
