import type { Image } from "../../kinds/image.ts";
import type { Instance } from "../../kinds/instance.ts";
import { placeImage, placeInstance } from "../../placement/placement.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { PlacementWorld } from "./observe.ts";

export type PlacementAction =
  | { type: "place-instance"; instance: Instance; host: string }
  | { type: "place-image"; image: Image; host: string }
  /** Tell why it waits. */
  | { type: "explain-instance"; instance: Instance; message: string }
  | { type: "explain-image"; image: Image; message: string };

/** Chooses a host for what has none. A host once chosen is never changed here. */
export function planPlacement(world: PlacementWorld): Plan<PlacementAction, never> {
  const action = world.type === "image" ? planImage(world) : planInstance(world);
  return { status: undefined, actions: action ? [action] : [] };
}

function planImage(world: Extract<PlacementWorld, { type: "image" }>): PlacementAction | undefined {
  const { image } = world;
  if (!image || image.status.host !== undefined || image.metadata.deletedAt !== undefined) return undefined;
  const placement = placeImage(world.candidates, world.images);
  if ("host" in placement) return { type: "place-image", image, host: placement.host };
  if (image.status.message === placement.message) return undefined;
  return { type: "explain-image", image, message: placement.message };
}

function planInstance(world: Extract<PlacementWorld, { type: "instance" }>): PlacementAction | undefined {
  const { instance, image } = world;
  if (!instance || instance.status.host !== undefined) return undefined;
  if (instance.metadata.deletedAt !== undefined) return undefined;
  const explain = (message: string): PlacementAction | undefined => {
    if (instance.status.message === message) return undefined;
    return { type: "explain-instance", instance, message };
  };
  // What it is made of lies on one host: a snapshot, or else its image.
  const home = instance.status.source ?? image?.status;
  if (!home)
    return explain(`waiting for the image "${instance.spec.image}", which does not exist; create it`);
  if (home.host === undefined) {
    return explain(`waiting for the image "${instance.spec.image}", for which no host was found yet`);
  }
  const placement = placeInstance({ ...instance.spec, imageHost: home.host }, world.candidates);
  if ("message" in placement) return explain(placement.message.slice(0, 1000));
  return { type: "place-instance", instance, host: placement.host };
}
