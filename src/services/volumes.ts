import { type FieldError, StrataError } from "../core/errors.ts";
import { hostKind } from "../kinds/host.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { projectKind } from "../kinds/project.ts";
import { snapshotKind } from "../kinds/snapshot.ts";
import { type StoragePool, storagePoolKind } from "../kinds/storage-pool.ts";
import { maxVolumes, minXfsMib, mountPathOf, type Volume, volumeKind } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import { findBackup } from "./backups.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { releaseDisk, takeDisk } from "./quota.ts";
import { References } from "./references.ts";
import { partOf } from "./snapshots.ts";
import { releaseRoom, takeRoom } from "./storage-pools.ts";

type Spec = Volume["spec"];
type Status = Volume["status"];

/**
 * A volume that a user creates counts against the quota from its creation to its removal. Attaching is admitted against the
 * instance, its other volumes and what the driver of its guest says it can; status.host and status.instance are the agents'
 * to report. Root volumes come with their instance and pass none of this.
 */
export const volumeHooks: KindHooks<Spec, Status> = {
  admit: admitVolume,
  async admitUpdate(next, previous, world, action) {
    const project = next.metadata.project ?? "";
    const references = new References(world, project);
    const { instance: name } = next.spec;
    const instance =
      name === undefined || name === previous.spec.instance
        ? undefined
        : await references.findAlone(instanceKind, name, "spec.instance");
    references.check(action);
    if (instance) await checkAttach(next, instance, world, action);
    const more = next.spec.sizeMib - previous.spec.sizeMib;
    return [...references.writes(), ...(more > 0 ? await chargeGrowth(next, more, world, action) : [])];
  },
  async checkDelete(volume, world, mode) {
    if (!mode.withProject) await checkUnused(volume, world);
  },
  // Without a host, nobody has made anything of it.
  idleFinalizers: (volume) => (volume.status.host === undefined ? ["agent"] : []),
  removal: async (volume, world) =>
    volume.spec.role === "data"
      ? [
          await releaseDisk(world, volume.metadata.project ?? "", volume.spec.sizeMib),
          ...(volume.status.pool === undefined
            ? []
            : await releaseRoom(world, volume.status.pool, volume.spec.sizeMib)),
        ]
      : [],
};

async function admitVolume(volume: Volume, world: World, action: string): Promise<Admission<Status>> {
  const { spec, metadata } = volume;
  const { project = "" } = metadata;
  if (spec.role === "root" || spec.type !== undefined) {
    const path = spec.role === "root" ? "spec.role" : "spec.type";
    const message = "is for the root volumes of instances, which come with their instance";
    throw invalid(action, [{ path, message, allowed: "nothing: leave it out" }]);
  }
  if (spec.fileSystem === "xfs" && spec.sizeMib < minXfsMib) {
    const message = `is ${spec.sizeMib}, too small for xfs`;
    throw invalid(action, [{ path: "spec.sizeMib", message, allowed: `${minXfsMib} or more; or ext4` }]);
  }
  const references = new References(world, project);
  const instance =
    spec.instance === undefined
      ? undefined
      : await references.findAlone(instanceKind, spec.instance, "spec.instance");
  references.check(action);
  const source = await checkSource(volume, references, action);
  const host = source?.host;
  const copied = host === undefined ? undefined : { host, message: "its source is being copied" };
  const poolName = spec.pool ?? source?.pool;
  const pool =
    poolName === undefined ? undefined : await references.find(storagePoolKind, poolName, "spec.pool");
  references.check(action);
  const placed: Volume = { ...volume, status: { ...volume.status, ...copied } };
  if (pool) checkPool(placed, pool, instance?.status.host, action);
  if (instance) await checkAttach(placed, instance, world, action);
  const asked = { mib: spec.sizeMib, allocation: spec.allocation };
  return {
    status: {
      state: copied ? "pending" : "available",
      message: "",
      observedGeneration: 0,
      ...copied,
      ...(pool ? { pool: pool.metadata.name } : {}),
    },
    writes: [
      await charge(world, project, spec.sizeMib, action),
      ...(pool ? [await takeRoom(world, pool, asked, action)] : []),
      ...references.writes(),
    ],
  };
}

/** @throws Conflict or Unsupported when the volume can never be where it is wanted. */
function checkPool({ spec, status }: Volume, pool: StoragePool, wanted: string | undefined, action: string) {
  const host = status.host ?? wanted;
  const here = host === undefined ? undefined : pool.status.hosts[host];
  if (host !== undefined && here?.state !== "ready") {
    const message = `is "${pool.metadata.name}", which is not ready on host "${host}"${here ? `: ${here.message}` : ""}`;
    throw conflict(action, { path: "spec.pool", message, allowed: "pools that are ready there" });
  }
  const seen = here ? [here] : Object.values(pool.status.hosts);
  if (spec.allocation !== "full" || !seen.some(({ fileSystem }) => fileSystem === "btrfs")) return;
  throw new StrataError(
    "Unsupported",
    `cannot ${action}: btrfs writes nothing in place, so that storage pool "${pool.metadata.name}" cannot keep space for ` +
      "a volume (spec.allocation full); use allocation thin, or a pool on xfs or ext4",
  );
}

/** @throws Conflict when the volume's pool is not where the instance is. */
async function requirePool(volume: Volume, host: string | undefined, world: World, action: string) {
  const { pool: name } = volume.status;
  const pool = name === undefined ? undefined : await world.find(storagePoolKind, { name });
  if (pool) checkPool(volume, pool, host, action);
}

/** Writes that join the growth of a volume. @throws QuotaExceeded, CapacityExceeded. */
async function chargeGrowth(next: Volume, mib: number, world: World, action: string): Promise<Write[]> {
  const writes = [await charge(world, next.metadata.project ?? "", mib, action)];
  const { pool: name } = next.status;
  const pool = name === undefined ? undefined : await world.find(storagePoolKind, { name });
  if (pool) writes.push(await takeRoom(world, pool, { mib, allocation: next.spec.allocation }, action));
  return writes;
}

/** Where the snapshot or backup is that it is made from. @throws Invalid when the volume does not fit what is in there. */
async function checkSource(
  { spec }: Volume,
  references: References,
  action: string,
): Promise<{ host?: string | undefined; pool?: string | undefined } | undefined> {
  if (spec.source === undefined) return undefined;
  const { snapshot: name, backup, volume } = spec.source;
  if (backup !== undefined) {
    const found = await findBackup({ name: backup, volume }, references, action);
    if (found) checkFit(spec, found, "backup", action);
    return found && { host: found.host };
  }
  const snapshot = await references.find(snapshotKind, name ?? "", "spec.source.snapshot");
  references.check(action);
  if (!snapshot) return undefined;
  const found = partOf(snapshot, volume);
  if ("error" in found) throw invalid(action, [found.error]);
  checkFit(spec, found.part, "snapshot", action);
  return { host: snapshot.status.host, pool: found.part.pool };
}

function checkFit(
  spec: Spec,
  { sizeMib, fileSystem }: { sizeMib: number; fileSystem?: string | undefined },
  what: string,
  action: string,
): void {
  const errors: FieldError[] = [];
  if (spec.sizeMib < sizeMib) {
    const message = `is ${spec.sizeMib}, less than what is in the ${what}`;
    errors.push({ path: "spec.sizeMib", message, allowed: `${sizeMib} or more` });
  }
  if (spec.fileSystem !== fileSystem) {
    const message = `is ${spec.fileSystem ?? "left out"}, unlike in the ${what}`;
    errors.push({ path: "spec.fileSystem", message, allowed: fileSystem ?? "nothing: leave it out" });
  }
  if (errors.length > 0) throw invalid(action, errors);
}

async function charge(world: World, name: string, mib: number, action: string): Promise<Write> {
  const project = await world.find(projectKind, { name });
  if (!project) throw new StrataError("NotFound", `cannot ${action}: project "${name}" is gone`);
  return takeDisk(world, project, mib, action);
}

/** @throws Conflict, Unsupported or Invalid when the instance cannot have the volume. */
async function checkAttach(volume: Volume, instance: Instance, world: World, action: string): Promise<void> {
  const { name, project = "" } = instance.metadata;
  const refuse = (message: string, allowed: string) =>
    conflict(action, { path: "spec.instance", message: `is "${name}", ${message}`, allowed });
  if (instance.spec.type === "container" && volume.spec.fileSystem === undefined) {
    const message = "a container, and the volume has no file system that it could mount";
    throw refuse(message, "virtual machines; or a volume created with a fileSystem");
  }
  const { host } = volume.status;
  if (host !== undefined && instance.status.host !== undefined && instance.status.host !== host) {
    throw refuse(
      `on host "${instance.status.host}", while the volume is on "${host}"`,
      `instances on "${host}"`,
    );
  }
  await requirePool(volume, instance.status.host, world, action);
  await requireAbility(instance, world, action);
  let others = 0;
  for await (const other of world.scan(volumeKind, project)) {
    if (other.spec.role === "root" || other.spec.instance !== name) continue;
    if (other.metadata.uid === volume.metadata.uid) continue;
    others++;
    if (instance.spec.type === "container" && mountPathOf(other) === mountPathOf(volume)) {
      throw refuse(
        `where volume "${other.metadata.name}" is mounted at ${mountPathOf(other)} already`,
        "another spec.path",
      );
    }
  }
  if (others >= maxVolumes) throw refuse(`which has ${others} volumes already`, `at most ${maxVolumes}`);
}

/** What a driver lacks is said at once, by what its host's agent has declared. */
async function requireAbility(
  { metadata, spec, status }: Instance,
  world: World,
  action: string,
): Promise<void> {
  const driver = status.driver ?? spec.driver;
  if (driver === undefined) return;
  const able = async (name: string) => {
    const found = (await world.find(hostKind, { name }))?.status.drivers[driver];
    return found === undefined || found.abilities.includes("volumes");
  };
  if (status.host !== undefined && (await able(status.host))) return;
  if (status.host === undefined && driver !== "docker") return;
  throw new StrataError(
    "Unsupported",
    `cannot ${action}: instance "${metadata.name}" runs with the driver ${driver}, which has no volumes that come and go; ` +
      "use an instance of another driver",
  );
}

/** @throws Conflict while it is protected, attached, or still being let go of. */
async function checkUnused({ metadata, spec, status }: Volume, world: World): Promise<void> {
  const { name, project = "", owner } = metadata;
  const refuse = (why: string) => new StrataError("Conflict", `cannot delete volume "${name}": ${why}`);
  if (spec.role === "root") {
    throw refuse(`it is the root volume of instance "${owner?.name ?? ""}" and goes with it`);
  }
  if (spec.protected) {
    throw refuse(
      'it is protected; set its spec.protected to false first (PATCH it with {"spec":{"protected":false}})',
    );
  }
  if (spec.instance !== undefined) {
    throw refuse(
      `it is attached to instance "${spec.instance}"; detach it first (PATCH it with {"spec":{"instance":null}})`,
    );
  }
  const leaving = status.instance;
  if (leaving === undefined || !(await world.find(instanceKind, { project, name: leaving }))) return;
  throw refuse(`it is still being detached from instance "${leaving}"; try again later`);
}
