import { type FieldError, StrataError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { type Json, jsonEquals } from "../core/json.ts";
import { addressKind } from "../kinds/address.ts";
import { imageKind } from "../kinds/image.ts";
import type { Instance, InstanceSpec, InstanceStatus } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { networkInterfaceKind } from "../kinds/network-interface.ts";
import { type Project, projectKind } from "../kinds/project.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import { toStored } from "../kinds/stored.ts";
import { rootVolumeNames, type Volume, volumeKind } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import type { Addresses } from "./addresses.ts";
import type { Capacity } from "./capacity.ts";
import { findGroups, findPlace, type Place, releaseAddresses, takeAddresses } from "./cards.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { findOrigin, takeRooms } from "./origins.ts";
import { releaseQuota, takeQuota } from "./quota.ts";
import { closeReferences, References, wasNamed } from "./references.ts";

/**
 * An instance is admitted with all it owns for life: its addresses and its root volume are part of the commit that
 * creates it, and the addresses are freed in the commit that removes it. The commit that marks it for deletion also
 * unplugs its further network interfaces, frees its floating addresses and deletes its published ports: none of them
 * may lead to an instance of the same name that comes later.
 */
export function instanceHooks(
  addresses: Addresses,
  capacity: Capacity,
): KindHooks<InstanceSpec, InstanceStatus> {
  return {
    // A stack file says how an instance should be, not how often somebody restarted or rebuilt it.
    keptByApply: ["restarts", "rebuilds"],
    admit: (instance, world, action) => admitInstance({ addresses, capacity }, instance, world, action),
    admitUpdate: (next, previous, world, action) => admitChange(capacity, next, previous, world, action),
    validateStatus(next, previous) {
      const { nic } = previous;
      if (nic === undefined || jsonEquals(next.nic as Json | undefined, nic as Json)) return [];
      return [{ path: "status.nic", message: "cannot change: it is the instance's for life" }];
    },
    closing: closeReferences,
    async checkDelete(instance, _world, mode) {
      if (!instance.spec.protected || mode.withProject) return;
      const { name } = instance.metadata;
      throw new StrataError(
        "Conflict",
        `instance "${name}" is protected against deletion; set its spec.protected to false first ` +
          `(PATCH it with {"spec":{"protected":false}})`,
      );
    },
    // Never placed: no agent has made anything of it.
    idleFinalizers: (instance) => (instance.status.host === undefined ? ["agent"] : []),
    async dependants(instance, world) {
      const volume = await rootVolumeOf(instance, world);
      const ports = (await wasNamed(instance, world))
        ? await usersOf(publishedPortKind, instance, world)
        : [];
      return [...(volume ? [volume] : []), ...ports];
    },
    deletion: unplug,
    async removal(instance, world) {
      const { nic } = instance.status;
      const { project = "" } = instance.metadata;
      return [
        ...(nic ? await releaseAddresses(addresses, nic, project, world) : []),
        await releaseQuota(world, instance),
      ];
    },
  };
}

async function admitInstance(
  parts: { addresses: Addresses; capacity: Capacity },
  instance: Instance,
  world: World,
  action: string,
): Promise<Admission<InstanceStatus>> {
  const { project = "" } = instance.metadata;
  const { spec } = instance;
  const references = new References(world, project);
  const place = await findParts(spec, references, world);
  const origin = await findOrigin(instance, references, world, action);
  for (const [index, name] of spec.keyPairs.entries()) {
    await references.peek(keyPairKind, name, `spec.keyPairs[${index}]`);
  }
  references.check(action);
  await parts.capacity.check(world, spec, action);
  const home = await requireProject(project, world, action);
  const volumes = origin?.volumes ?? [];
  if (volumes.length > 0) references.nameNew(instance);
  const rooms = await takeRooms(volumes, references, world, action);
  const volumesMib = volumes.reduce((sum, volume) => sum + volume.spec.sizeMib, 0);
  const quota = await takeQuota(world, home, { next: spec, volumesMib }, action);
  const { writes, ...taken } = await takeAddresses(parts.addresses, instance, spec, place, action);
  return {
    status: {
      ...instance.status,
      nic: { network: spec.network, ...taken },
      ...origin?.status,
    },
    dependants: [await newRootVolume(instance, world), ...volumes, ...(origin?.image ? [origin.image] : [])],
    writes: [...writes, quota, ...rooms, ...references.writes()],
  };
}

/** What an instance, or a template of some, names and needs, but for its key pairs. Errors go to `references`. */
export async function findParts(
  spec: Omit<InstanceSpec, "protected" | "power" | "restarts" | "rebuilds">,
  references: References,
  world: World,
): Promise<Place> {
  // What lies in a snapshot needs no image to be made.
  if (spec.source === undefined) await findImage(spec, references);
  const place = await findPlace(spec, references, world);
  await findGroups(spec.securityGroups, references);
  references.errors.push(...checkDriver(spec));
  return place;
}

/** @throws Invalid, QuotaExceeded, CapacityExceeded */
async function admitChange(
  capacity: Capacity,
  next: Instance,
  previous: Instance,
  world: World,
  action: string,
): Promise<Write[]> {
  const writes: Write[] = [];
  const { spec } = next;
  if (spec.image !== previous.spec.image) {
    const references = new References(world, next.metadata.project ?? "");
    await findImage(spec, references);
    references.check(action);
    writes.push(...references.writes());
  }
  if (spec.securityGroups.join() !== previous.spec.securityGroups.join()) {
    const references = new References(world, next.metadata.project ?? "");
    await findGroups(spec.securityGroups, references);
    references.check(action);
    writes.push(...references.writes());
  }
  if (spec.cpus !== previous.spec.cpus || spec.memoryMib !== previous.spec.memoryMib) {
    writes.push(...(await capacity.checkResize(world, next, previous, action)));
    const home = await requireProject(next.metadata.project ?? "", world, action);
    writes.push(await takeQuota(world, home, { next: spec, previous: previous.spec }, action));
  }
  return writes;
}

async function requireProject(name: string, world: World, action: string): Promise<Project> {
  const home = await world.find(projectKind, { name });
  if (!home) throw new StrataError("NotFound", `cannot ${action}: project "${name}" is gone`);
  return home;
}

async function findImage(spec: Pick<InstanceSpec, "image" | "type">, references: References): Promise<void> {
  const image = await references.find(imageKind, spec.image, "spec.image");
  if (image?.status.state !== "ready" || image.status.types.includes(spec.type)) return;
  references.errors.push({
    path: "spec.type",
    message: `is "${spec.type}", which image "${spec.image}" cannot start as`,
    allowed: image.status.types.join(", "),
  });
}

/** Rules between fields that concern one driver only. */
function checkDriver({
  application,
  driver,
  type,
}: Pick<InstanceSpec, "application" | "driver" | "type">): FieldError[] {
  const errors: FieldError[] = [];
  if (application && driver !== "docker") {
    const found = driver === undefined ? "it is left out" : `it is "${driver}"`;
    const message = `must be docker for an instance with spec.application, but ${found}`;
    errors.push({ path: "spec.driver", message, allowed: "docker" });
  }
  if (driver === "docker" && type !== "container") {
    const message = `is "${type}", which the driver docker cannot run`;
    errors.push({ path: "spec.type", message, allowed: "container" });
  }
  for (const field of ["name", "path"] as const) {
    const values = application?.volumes.map((volume) => volume[field]) ?? [];
    const again = values.findIndex((value, index) => values.indexOf(value) < index);
    if (again < 0) continue;
    const path = `spec.application.volumes[${again}].${field}`;
    errors.push({ path, message: `is "${values[again]}" a second time`, allowed: "each once" });
  }
  return errors;
}

const unplugged = [networkInterfaceKind, addressKind, volumeKind] as const;

/** Takes the instance out of the specs that name it and go on without it. */
async function unplug(instance: Instance, world: World): Promise<Write[]> {
  if (!(await wasNamed(instance, world))) return [];
  const cards = await usersOf(networkInterfaceKind, instance, world);
  const floating = await usersOf(addressKind, instance, world);
  const volumes = await usersOf(volumeKind, instance, world);
  return [...cards, ...floating, ...volumes].map((user): Write => {
    const { instance: _gone, ...spec } = user.spec;
    const { metadata } = user;
    const kind = unplugged.find(({ name }) => name === user.kind) ?? networkInterfaceKind;
    const key = resourceKey(kind, metadata as Ref);
    const next = { ...user, spec, metadata: { ...metadata, generation: metadata.generation + 1 } };
    return { put: key, value: toStored(next), ifRevision: metadata.revision };
  });
}

async function usersOf<S extends { instance?: string | undefined }, T>(
  kind: Kind<S, T>,
  instance: Instance,
  world: World,
): Promise<Resource<S, T>[]> {
  const { name, project } = instance.metadata;
  const users: Resource<S, T>[] = [];
  for await (const user of world.scan(kind, project)) if (user.spec.instance === name) users.push(user);
  return users;
}

async function newRootVolume(instance: Instance, world: World): Promise<Volume> {
  const { name, project = "", uid, createdAt } = instance.metadata;
  const [plain, unique] = rootVolumeNames(name, uid);
  // The plain name may still belong to the disk of an instance of that name which is just being deleted.
  const taken = plain !== undefined && (await world.find(volumeKind, { project, name: plain })) !== undefined;
  return {
    kind: volumeKind.name,
    metadata: {
      name: plain === undefined || taken ? unique : plain,
      project,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt,
      finalizers: [...volumeKind.finalizers],
      owner: { kind: instance.kind, name, uid },
    },
    spec: { sizeMib: instance.spec.diskMib, role: "root", type: instance.spec.type, protected: false },
    status: volumeKind.initialStatus(),
  };
}

async function rootVolumeOf(instance: Instance, world: World): Promise<Volume | undefined> {
  const { name, project = "", uid } = instance.metadata;
  for (const candidate of rootVolumeNames(name, uid)) {
    if (candidate === undefined) continue;
    const volume = await world.find(volumeKind, { project, name: candidate });
    if (volume?.metadata.owner?.uid === uid) return volume;
  }
  return undefined;
}
