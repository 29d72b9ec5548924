import type { NetworkRequest } from "../../host/networks/networks.ts";
import type { Network, NetworkStatus } from "../../kinds/network.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface NetworkWorld {
  key: string;
  hostName: string;
  network: Network | undefined;
  /** What it is to be like; undefined while it has no range. */
  request: NetworkRequest | undefined;
  /** Cards of this host in it, those of instances being deleted included. */
  users: readonly NetworkUser[];
  /** `changed`: it is there, in an older form. */
  made: "no" | "changed" | "yes";
  /** Of what was made. */
  hostAddress: string | undefined;
  /** All that is known of cards, groups and addresses is in force. */
  inForce: boolean;
  /** The uid of a network that this host made under this key and the API knows no more. */
  leftBehind: string | undefined;
}

export interface NetworkUser {
  /** Of the instance. */
  name: string;
  subnet: string | undefined;
}

export type NetworkAction =
  | { type: "ensure"; key: string; request: NetworkRequest }
  | { type: "apply"; key: string }
  | { type: "remove"; key: string; uid: string }
  | { type: "finalize"; network: Network };

/**
 * A network is made on a host when the first instance there needs it, and stays until it is deleted. It is never taken
 * away under an instance, nor the subnet of one: that goes only when everything is being deleted.
 */
export function planNetwork(world: NetworkWorld): Plan<NetworkAction, NetworkStatus> {
  const { network, users, key, request, made, inForce } = world;
  if (!network) {
    const { leftBehind } = world;
    if (leftBehind === undefined || users.length > 0) return { status: undefined, actions: [] };
    return { status: undefined, actions: [{ type: "remove", key, uid: leftBehind }] };
  }
  const { metadata, status } = network;
  if (metadata.generation < status.observedGeneration) return { status: undefined, actions: [] };
  if (metadata.deletedAt !== undefined) return planDeletion(world, network);
  if (!request || (users.length === 0 && made === "no")) return { status, actions: [] };
  const missing = missingSubnet(request, users);
  if (missing !== undefined && made === "no") {
    return {
      status: { ...status, message: `waiting for the subnet "${missing}" to have a range` },
      actions: [],
    };
  }
  const actions: NetworkAction[] = [];
  if (made !== "yes" && missing === undefined) actions.push({ type: "ensure", key, request });
  if (actions.length > 0 || !inForce) actions.push({ type: "apply", key });
  if (actions.length > 0) return { status, actions };
  const address = world.hostAddress === undefined ? {} : { [world.hostName]: world.hostAddress };
  return {
    status: {
      ...status,
      state: "ready",
      message: "",
      observedGeneration: metadata.generation,
      hostAddresses: { ...status.hostAddresses, ...address },
    },
    actions: [],
  };
}

function missingSubnet(request: NetworkRequest, users: readonly NetworkUser[]): string | undefined {
  const names = new Set(request.subnets.map(({ name }) => name));
  return users.find(({ subnet }) => subnet !== undefined && !names.has(subnet))?.subnet;
}

function planDeletion(world: NetworkWorld, network: Network): Plan<NetworkAction, NetworkStatus> {
  const { status, metadata } = network;
  const { key, users, made, inForce } = world;
  if (users.length > 0) {
    const names = [...new Set(users.map(({ name }) => name))].slice(0, 3);
    const message = `is deleted once its instances are gone (${names.join(", ")})`;
    // Instances go one by one, and so do their cards.
    const actions: NetworkAction[] = made !== "no" && !inForce ? [{ type: "apply", key }] : [];
    return { status: { ...status, message }, actions };
  }
  if (!metadata.finalizers.includes("agent")) return { status: undefined, actions: [] };
  return {
    status: undefined,
    actions: [
      { type: "remove", key, uid: metadata.uid },
      { type: "finalize", network },
    ],
  };
}
