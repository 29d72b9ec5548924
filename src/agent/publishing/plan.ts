import type { Address } from "../../kinds/address.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { PublishedPort } from "../../kinds/published-port.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { Publication } from "../networks/policy.ts";

export interface PublishWorld<R> {
  resource: R | undefined;
  /** The one that it is for, when that is on this host. */
  instance: Instance | undefined;
  /** Where it leads; undefined while it has no address or the instance has none. */
  publication: Publication | undefined;
  inForce: boolean;
}

/** Waits until the network's policy, of which it is a part, is in force. */
export interface PublishAction {
  type: "apply";
  instance: Instance;
  publication: Publication;
}

/** What takes longer than this is told while it is under way. */
const newsAfterMs = 100;

export function planPort(world: PublishWorld<PublishedPort>): Plan<PublishAction, PublishedPort["status"]> {
  const { resource } = world;
  const wanted = wantedHere(world);
  if (!resource || !wanted) return { status: undefined, actions: [] };
  const { metadata, status } = resource;
  if (world.inForce) {
    const observedGeneration = metadata.generation;
    return { status: { ...status, state: "active", message: "", observedGeneration }, actions: [] };
  }
  return { status: { ...status, state: "pending" }, actions: [wanted], reportAfterMs: newsAfterMs };
}

export function planAddress(world: PublishWorld<Address>): Plan<PublishAction, Address["status"]> {
  const { resource } = world;
  if (!resource) return { status: undefined, actions: [] };
  const { metadata, spec, status } = resource;
  const observedGeneration = metadata.generation;
  if (spec.instance === undefined && metadata.deletedAt === undefined) {
    return { status: { ...status, state: "free", message: "", observedGeneration }, actions: [] };
  }
  const wanted = wantedHere(world);
  if (!wanted) return { status: undefined, actions: [] };
  if (world.inForce) {
    return { status: { ...status, state: "bound", message: "", observedGeneration }, actions: [] };
  }
  return { status: { ...status, state: "binding" }, actions: [wanted], reportAfterMs: newsAfterMs };
}

/** Undefined when there is nothing to publish here, or no more. */
function wantedHere(world: PublishWorld<PublishedPort | Address>): PublishAction | undefined {
  const { resource, instance, publication } = world;
  if (!resource || !instance || !publication) return undefined;
  if (resource.metadata.deletedAt !== undefined || instance.metadata.deletedAt !== undefined)
    return undefined;
  return { type: "apply", instance, publication };
}
