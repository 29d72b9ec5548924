import type { Instance } from "../../kinds/instance.ts";
import type { Network, NetworkStatus } from "../../kinds/network.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface NetworkWorld {
  key: string;
  network: Network | undefined;
  /** Instances of this host in it, those being deleted included. */
  users: readonly Instance[];
  /** It was made or mended since the last reason to doubt it. */
  made: boolean;
  /** The uid of a network that this host made under this key and the API knows no more. */
  leftBehind: string | undefined;
}

export type NetworkAction =
  | { type: "ensure"; network: Network; users: readonly Instance[] }
  | { type: "remove"; key: string; uid: string }
  | { type: "finalize"; network: Network };

/**
 * A network is made on a host when the first instance there needs it, and stays until it is deleted. It is never taken
 * away under an instance.
 */
export function planNetwork(world: NetworkWorld): Plan<NetworkAction, NetworkStatus> {
  const { network, users, key } = world;
  if (!network) {
    const { leftBehind } = world;
    if (leftBehind === undefined || users.length > 0) return { status: undefined, actions: [] };
    return { status: undefined, actions: [{ type: "remove", key, uid: leftBehind }] };
  }
  const { metadata, status } = network;
  if (metadata.generation < status.observedGeneration) return { status: undefined, actions: [] };
  if (metadata.deletedAt !== undefined) return planDeletion(world, network);
  if (users.length === 0 || status.cidr === undefined) return { status, actions: [] };
  if (!world.made) return { status, actions: [{ type: "ensure", network, users }] };
  return {
    status: { ...status, state: "ready", message: "", observedGeneration: metadata.generation },
    actions: [],
  };
}

function planDeletion(world: NetworkWorld, network: Network): Plan<NetworkAction, NetworkStatus> {
  const { status, metadata } = network;
  if (world.users.length > 0) {
    const names = world.users.slice(0, 3).map((user) => user.metadata.name);
    const message = `is deleted once its instances are gone (${names.join(", ")})`;
    return { status: { ...status, message }, actions: [] };
  }
  if (!metadata.finalizers.includes("agent")) return { status: undefined, actions: [] };
  return {
    status: undefined,
    actions: [
      { type: "remove", key: world.key, uid: metadata.uid },
      { type: "finalize", network },
    ],
  };
}
