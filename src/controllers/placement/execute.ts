import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import { fromStored } from "../../kinds/stored.ts";
import { rootVolumeNames, type Volume, volumeKind } from "../../kinds/volume.ts";
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
  await context.caches.instances.replace(instance, placed, others);
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
