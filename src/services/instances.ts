import { type FieldError, StrataError } from "../core/errors.ts";
import { newUid, type Uid } from "../core/ids.ts";
import { closest } from "../core/spelling.ts";
import { imageKind } from "../kinds/image.ts";
import type { Instance, InstanceSpec, InstanceStatus } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import type { Kind } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { rootVolumeNames, type Volume, volumeKind } from "../kinds/volume.ts";
import type { Addresses } from "./addresses.ts";
import type { Capacity } from "./capacity.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { releaseQuota, takeQuota } from "./quota.ts";
import { someNames } from "./world.ts";

/** Names offered when one is wrong. */
const namesInMessage = 50;

/**
 * An instance is admitted with all it owns for life: its address and its root volume are part of the commit that
 * creates it, and the address is freed in the commit that removes it.
 */
export function instanceHooks(
  addresses: Addresses,
  capacity: Capacity,
): KindHooks<InstanceSpec, InstanceStatus> {
  return {
    // A stack file says how an instance should be, not how often somebody restarted it.
    keptByApply: ["restarts"],
    admit: (instance, world, action) => admitInstance({ addresses, capacity }, instance, world, action),
    validateStatus(next, previous) {
      if (previous.nic === undefined || JSON.stringify(next.nic) === JSON.stringify(previous.nic)) return [];
      return [{ path: "status.nic", message: "cannot change: it is the instance's for life" }];
    },
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
      return volume ? [volume] : [];
    },
    async removal(instance, world) {
      const { nic } = instance.status;
      const networkUid = nic === undefined ? undefined : await networkUidOf(instance, nic.network, world);
      return [
        ...(nic && networkUid !== undefined ? [addresses.release(networkUid, nic.ipAddress)] : []),
        await releaseQuota(world, instance),
      ];
    },
  };
}

export const volumeHooks: KindHooks<Volume["spec"], Volume["status"]> = {
  idleFinalizers: (volume) => (volume.status.host === undefined ? ["agent"] : []),
};

async function admitInstance(
  parts: { addresses: Addresses; capacity: Capacity },
  instance: Instance,
  world: World,
  action: string,
): Promise<Admission<InstanceStatus>> {
  const { project = "", name, uid } = instance.metadata;
  const network = await checkReferences(instance, world, action);
  await parts.capacity.check(world, instance.spec, action);
  const home = await world.find(projectKind, { name: project });
  if (!home) throw new StrataError("NotFound", `cannot ${action}: project "${project}" is gone`);
  const quota = await takeQuota(world, home, instance.spec, action);
  const { cidr } = network.status;
  if (cidr === undefined) {
    throw new StrataError("Internal", `network "${network.metadata.name}" has no range`);
  }
  const owner = { uid: network.metadata.uid, name: network.metadata.name, cidr };
  const taken = await parts.addresses.take(owner, { project, instance: name, uid });
  const nic = {
    network: network.metadata.name,
    macAddress: taken.macAddress,
    ipAddress: taken.ipAddress,
  };
  return {
    status: { ...instance.status, nic },
    dependants: [await newRootVolume(instance, world)],
    writes: [taken.write, quota],
  };
}

/** What spec names must exist in the project. @throws Invalid with the names that do. */
async function checkReferences(instance: Instance, world: World, action: string): Promise<Network> {
  const { project = "" } = instance.metadata;
  const { spec } = instance;
  const [image, network, ...keyPairs] = await Promise.all([
    world.find(imageKind, { project, name: spec.image }),
    world.find(networkKind, { project, name: spec.network }),
    ...spec.keyPairs.map((name) => world.find(keyPairKind, { project, name })),
  ]);
  const errors: FieldError[] = [];
  const check = async (kind: Kind<never, never>, found: Found, path: string, name: string) => {
    if (found === undefined) errors.push(await missing(world, kind, project, path, name));
    else if (found.metadata.deletedAt !== undefined) {
      errors.push({ path, message: `names "${name}", which is being deleted` });
    }
  };
  await check(imageKind as Kind<never, never>, image, "spec.image", spec.image);
  await check(networkKind as Kind<never, never>, network, "spec.network", spec.network);
  for (const [index, name] of spec.keyPairs.entries()) {
    await check(keyPairKind as Kind<never, never>, keyPairs[index], `spec.keyPairs[${index}]`, name);
  }
  if (image?.status.state === "ready" && !image.status.types.includes(spec.type)) {
    errors.push({
      path: "spec.type",
      message: `is "${spec.type}", which image "${spec.image}" cannot start as`,
      allowed: image.status.types.join(", "),
    });
  }
  if (errors.length > 0 || !network) throw invalid(action, errors);
  return network;
}

type Found = { metadata: { deletedAt?: string | undefined } } | undefined;

async function missing(
  world: World,
  kind: Kind<never, never>,
  project: string,
  path: string,
  name: string,
): Promise<FieldError> {
  const names = await someNames(world, kind, project, namesInMessage);
  const near = closest(name, names);
  const hint = near === undefined ? "" : `; did you mean "${near}"?`;
  const kindName = kind.plural.replace(/-/g, " ");
  return {
    path,
    message: `names "${name}", which is not among the ${kindName} of project "${project}"${hint}`,
    allowed: names.length > 0 ? names.join(", ") : `none: the project has no ${kindName} yet`,
  };
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
    spec: { sizeMib: instance.spec.diskMib, role: "root", type: instance.spec.type },
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

/** A network stays as long as addresses of it are taken, so the name still means the same network. */
async function networkUidOf(instance: Instance, network: string, world: World): Promise<Uid | undefined> {
  const { project = "" } = instance.metadata;
  return (await world.find(networkKind, { project, name: network }))?.metadata.uid;
}
