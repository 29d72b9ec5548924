import { StrataError } from "../../core/errors.ts";
import type { Instance } from "../../kinds/instance.ts";
import { promisesKey, resourceKey } from "../../kinds/keys.ts";
import { fromStored } from "../../kinds/stored.ts";
import { rootVolumeNames, type Volume, volumeKind } from "../../kinds/volume.ts";
import type { Write } from "../../store/store.ts";
import type { ControllerContext } from "../context.ts";
import type { PlacementAction } from "./plan.ts";

/** Each is one commit, compared with what the plan looked at. @throws Conflict when that has changed meanwhile. */
export async function executePlacement(context: ControllerContext, action: PlacementAction): Promise<void> {
  const { caches } = context;
  switch (action.type) {
    case "place-image":
    case "explain-image": {
      const { image } = action;
      const change =
        action.type === "place-image"
          ? { host: action.host, message: `waiting for host ${action.host} to make it` }
          : { message: action.message };
      return caches.images.replace(image, { ...image, status: { ...image.status, ...change } });
    }
    case "explain-instance": {
      const { instance, message } = action;
      const status = { ...instance.status, reason: "NoHost", message };
      return caches.instances.replace(instance, { ...instance, status });
    }
    case "place-instance":
      return placeInstance(context, action.instance, action.host);
  }
}

/** The root volume goes with its instance, in the same commit. */
async function placeInstance(context: ControllerContext, instance: Instance, host: string): Promise<void> {
  const placed = {
    ...instance,
    status: {
      ...instance.status,
      host,
      reason: "Placed",
      message: `waiting for host ${host} to begin`,
    },
  };
  const volume = await rootVolume(context, instance);
  const others = volume
    ? [
        {
          kind: volumeKind as never,
          current: volume,
          next: { ...volume, status: { ...volume.status, host } },
        },
      ]
    : [];
  await context.caches.instances.replace(instance, placed, others, [await promise(context, instance, host)]);
}

/**
 * An instance that grew on the host took room that the decision may not have known of. Its growth is one commit with
 * this key, so the cache, which follows the order of commits, knows of it once it has that instance's revision.
 * @throws Conflict when it does not; the decision is then made anew.
 */
async function promise(
  { caches, store }: ControllerContext,
  instance: Instance,
  host: string,
): Promise<Write> {
  const put = promisesKey(host);
  const last = await store.get(put);
  const { to } = (last?.value ?? {}) as { to?: string };
  const known = to === undefined ? undefined : caches.instances.get(to);
  if (last && known && known.metadata.revision < last.revision) {
    throw new StrataError(
      "Conflict",
      `instance "${instance.metadata.name}" was not placed: others on host "${host}" grew meanwhile`,
    );
  }
  const value = { to: caches.instances.keyOf(instance) };
  return { put, value, ifRevision: last?.revision ?? 0 };
}

async function rootVolume(context: ControllerContext, instance: Instance): Promise<Volume | undefined> {
  const { name, project = "", uid } = instance.metadata;
  for (const candidate of rootVolumeNames(name, uid)) {
    if (candidate === undefined) continue;
    const entry = await context.store.get(resourceKey(volumeKind, { project, name: candidate }));
    const volume = entry && fromStored<Volume>(entry);
    if (volume?.metadata.owner?.uid === uid) return volume;
  }
  return undefined;
}
