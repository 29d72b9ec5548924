import type { Image } from "../../kinds/image.ts";
import { imageKind } from "../../kinds/image.ts";
import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { Candidate } from "../../placement/placement.ts";
import { ownerOf } from "../groups/state.ts";
import type { PlacementState } from "./state.ts";

export type PlacementWorld =
  | { type: "instance"; instance: Instance | undefined; image: Image | undefined; candidates: Candidate[] }
  | { type: "image"; image: Image | undefined; candidates: Candidate[]; images: ReadonlyMap<string, number> };

/** What placing this instance or image needs to know. Hosts are looked at only when there is something to place. */
export function observePlacement(state: PlacementState, key: string): PlacementWorld {
  const { caches } = state;
  const image = caches.images.get(key);
  if (key.startsWith(imagePrefix)) {
    const candidates = image && image.status.host === undefined ? candidatesOf(state) : [];
    return { type: "image", image, candidates, images: state.imagesByHost };
  }
  const instance = caches.instances.get(key);
  const needed = instance && instance.status.host === undefined && instance.metadata.deletedAt === undefined;
  if (!instance || !needed) return { type: "instance", instance, image: undefined, candidates: [] };
  const { project = "" } = instance.metadata;
  return {
    type: "instance",
    instance,
    image: caches.images.get(resourceKey(imageKind, { project, name: instance.spec.image })),
    candidates: spreadOut(state, instance, candidatesOf(state)),
  };
}

/** With what each host has of the instance's group, when its members shall be spread. */
function spreadOut({ caches, members }: PlacementState, instance: Instance, hosts: Candidate[]): Candidate[] {
  const uid = ownerOf(instance);
  if (uid === undefined || caches.groups.byUid(uid)?.spec.spread !== "hosts") return hosts;
  const counts = new Map<string, number>();
  for (const key of members.keysOf(uid)) {
    const host = caches.instances.get(key)?.status.host;
    if (host !== undefined) counts.set(host, (counts.get(host) ?? 0) + 1);
  }
  return hosts.map((one) => ({ ...one, siblings: counts.get(one.host.metadata.name) ?? 0 }));
}

const imagePrefix = "/images/";

function candidatesOf({ caches, usage }: PlacementState): Candidate[] {
  return [...caches.hosts.values()].map((host) => ({ host, use: usage.of(host.metadata.name) }));
}
