import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { GuestDriver, GuestVolume } from "../../drivers/driver.ts";
import type { PoolPlace } from "../../host/disks/data-files.ts";
import type { Instance } from "../../kinds/instance.ts";
import { mountPathOf, type Volume } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { placeOf } from "../pools/pools.ts";

/**
 * What this process knows of the volumes of guests, by uid of the instance: which a guest surely has, with what size. Lost
 * with the process; what is then not known is found out by doing it again.
 */
export class GuestVolumes {
  readonly #sizes = new Map<string, Map<string, number>>();

  /** A start begins, with these and no others. */
  begin(instance: string, volumes: readonly Volume[]): void {
    this.#sizes.set(instance, new Map(volumes.map(({ metadata, spec }) => [metadata.uid, spec.sizeMib])));
  }

  sizeMib(instance: string, volume: string): number | undefined {
    return this.#sizes.get(instance)?.get(volume);
  }

  plugged(instance: string, volume: string, sizeMib: number): void {
    const sizes = this.#sizes.get(instance) ?? new Map<string, number>();
    this.#sizes.set(instance, sizes.set(volume, sizeMib));
  }

  unplugged(instance: string, volume: string): void {
    this.#sizes.get(instance)?.delete(volume);
  }

  /** The instance is gone. */
  forget(instance: string): void {
    this.#sizes.delete(instance);
  }
}

/** The volumes whose status says that they are the instance's. */
export function recordedVolumes({ views, hostName }: AgentContext, instance: Instance): Volume[] {
  const { name } = instance.metadata;
  return [...views.volumesByPlug.keysOf(views.instances.keyOf(instance))].flatMap((key) => {
    const volume = views.volumes.get(key);
    return volume && volume.spec.instance === name && volume.status.host === hostName ? [volume] : [];
  });
}

/** Names of volumes that are on their way to be recorded as the instance's. */
export function unclaimedVolumes({ views, hostName }: AgentContext, key: string): string[] {
  return [...views.volumesByWish.keysOf(key)].flatMap((volumeKey) => {
    const volume = views.volumes.get(volumeKey);
    if (!volume || volume.metadata.deletedAt !== undefined || volume.status.state === "failed") return [];
    const { instance, host } = volume.status;
    const elsewhere = host !== undefined && host !== hostName;
    return instance === undefined && !elsewhere ? [volume.metadata.name] : [];
  });
}

/** Makes the volume, unless it is there, in the form that the driver takes. @throws Unsupported where it takes none. */
export async function guestVolume(
  context: AgentContext,
  driver: GuestDriver,
  { volume, instance }: { volume: Volume; instance: Instance },
  signal: AbortSignal,
): Promise<GuestVolume> {
  const { sizeMib, fileSystem, allocation } = volume.spec;
  const uid = volume.metadata.uid as Uid;
  const request = { uid, sizeMib, allocation, pool: poolFor(context, volume.status.pool) };
  const { disks, images } = context;
  const takes = driver.volumes?.takes;
  if (takes === "disk") {
    const path = await disks.lendData({ ...request, fileSystem }, signal);
    return { type: "disk", id: uid, path, ...(allocation === "full" ? { keepsSpace: true } : {}) };
  }
  const digest = instance.status.imageDigest;
  if (takes === undefined || fileSystem === undefined || digest === undefined) {
    throw new StrataError(
      "Unsupported",
      `instance "${instance.metadata.name}" cannot have volume "${volume.metadata.name}"`,
    );
  }
  const { idBase, idCount } = await images.containerTree(digest, signal);
  const path = await disks.mountData({ ...request, fileSystem }, { idBase, idCount }, signal);
  return { type: "mount", id: uid, path, target: mountPathOf(volume) };
}

/** Where the pool of that name is on this host. @throws Unavailable while it is not ready here. */
export function poolFor({ views, hostName }: AgentContext, name: string | undefined): PoolPlace | undefined {
  if (name === undefined) return undefined;
  const pool = views.storagePools.find({ name });
  const here = pool?.status.hosts[hostName];
  if (pool && here?.state === "ready") return placeOf(pool);
  const why = here?.message || "nobody has looked at it yet";
  throw new StrataError("Unavailable", `storage pool "${name}" is not ready on host "${hostName}": ${why}`);
}
