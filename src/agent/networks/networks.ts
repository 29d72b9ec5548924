/**
 * Keeps the virtual networks of this host: makes them when an instance needs them, changes and mends them, applies what
 * is wanted of cards, groups and addresses, and takes them away when they are deleted. Ranges and addresses are the
 * API's decision; here they are only carried out.
 */
import { toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { Ref } from "../../kinds/keys.ts";
import { type Network, type NetworkStatus, networkKind } from "../../kinds/network.ts";
import type { Peering } from "../../kinds/peering.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { type AgentViews, networkKeyOf, peerKeyOf } from "../views.ts";
import { membersOf, requestFor } from "./contents.ts";
import { type NetworkAction, type NetworkUser, type NetworkWorld, planNetwork } from "./plan.ts";

export function createNetworkReconciler(
  context: AgentContext,
): Reconciler<NetworkWorld, NetworkAction, NetworkStatus> {
  return new NetworkReconciler(context);
}

class NetworkReconciler implements Reconciler<NetworkWorld, NetworkAction, NetworkStatus> {
  readonly name = "networks";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  /** By key, the uid of what was made here and not doubted since. */
  readonly #made = new Map<string, string>();
  /** Uids of those whose finalizer is gone; what the view still shows of them is old. */
  readonly #finalized = new Set<string>();

  constructor(context: AgentContext) {
    this.#context = context;
    const { networks } = context.views;
    const structure = followStructure(context.views);
    this.watches = [
      { name: "networks", urgent: true, keys: (signal) => networks.watchKeys(signal) },
      { name: "structure", urgent: true, keys: (signal) => structure.keys(signal) },
      { name: "policies", urgent: true, keys: (signal) => context.policies.hints.keys(signal) },
      { name: "broken networks", keys: (signal) => this.#brokenKeys(signal) },
    ];
    networks.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        this.#finalized.delete(previous.metadata.uid);
    });
  }

  async observe(key: string): Promise<NetworkWorld> {
    const { views, hostName, attachments, policies } = this.#context;
    const found = views.networks.get(key);
    const network = found && this.#finalized.has(found.metadata.uid) ? undefined : found;
    const madeUid = this.#made.get(key);
    const uid = network?.metadata.uid;
    const request = network && requestFor(views, network);
    const here = uid !== undefined && madeUid === uid;
    const current = here && request !== undefined && attachments.isMade(request);
    return {
      key,
      hostName,
      network,
      request,
      users: usersOf(this.#context, key),
      made: current ? "yes" : here ? "changed" : "no",
      hostAddress: uid === undefined ? undefined : attachments.get(uid)?.hostAddress,
      inForce: policies.isInForce(key),
      leftBehind: madeUid !== uid ? madeUid : undefined,
    };
  }

  plan(world: NetworkWorld) {
    return planNetwork(world);
  }

  async execute(action: NetworkAction, signal: AbortSignal): Promise<void> {
    const { attachments, policies, networks, client } = this.#context;
    switch (action.type) {
      case "ensure":
        await attachments.attach(action.request, signal);
        this.#made.set(action.key, action.request.uid);
        return;
      case "apply":
        return policies.apply(action.key);
      case "remove":
        attachments.doubt(action.uid);
        await networks.remove(action.uid, signal);
        attachments.forget(action.uid);
        policies.forget(action.key);
        if (this.#made.get(action.key) === action.uid) this.#made.delete(action.key);
        return;
      case "finalize": {
        const { metadata } = action.network;
        await client.removeFinalizer(networkKind, metadata as Ref, metadata.uid, "agent", { signal });
        this.#finalized.add(metadata.uid);
      }
    }
  }

  async report(_key: string, world: NetworkWorld, status: NetworkStatus, signal: AbortSignal): Promise<void> {
    const { client, views } = this.#context;
    if (!world.network) return;
    await reportStatus(client, networkKind, views.networks, world.network, status, signal);
  }

  async failed(key: string, failure: Failure<NetworkWorld>, signal: AbortSignal): Promise<void> {
    const network = failure.world?.network;
    if (!network) return;
    const error = toStrataError(failure.error, `work on network "${network.metadata.name}"`);
    const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
    const message = `on host ${this.#context.hostName}: ${error.message}; trying again in ${seconds} s`.slice(
      0,
      1000,
    );
    const status = { ...network.status, state: "failed" as const, message };
    await this.report(key, failure.world ?? (await this.observe(key)), status, signal);
  }

  async *#brokenKeys(signal: AbortSignal): AsyncGenerator<string> {
    const { networks, attachments, views, policies } = this.#context;
    const events = networks.events(signal);
    const doubt = (key: string, uid: string) => {
      attachments.doubt(uid);
      policies.doubt(key);
      this.#made.delete(key);
    };
    // When it is called again, events may have been missed in between.
    for (const [key, uid] of [...this.#made]) {
      doubt(key, uid);
      yield key;
    }
    for await (const { uid } of events) {
      attachments.doubt(uid);
      const network = views.networks.byUid(uid);
      if (!network) continue;
      const key = views.networks.keyOf(network);
      doubt(key, uid);
      yield key;
    }
  }
}

function usersOf({ views, policies }: AgentContext, key: string): NetworkUser[] {
  const { instances, interfaces } = membersOf(views, key, policies.departed);
  return [
    ...instances.map(({ metadata, status }) => ({ name: metadata.name, subnet: status.nic?.subnet })),
    ...interfaces.map(({ card, instance }) => ({ name: instance.metadata.name, subnet: card.status.subnet })),
  ];
}

/** Keys of networks of which a subnet, a route table, a peering or the peer itself changed. */
function followStructure(views: AgentViews): Hints {
  const hints = new Hints();
  views.subnets.onChange((_key, next, previous) => {
    if (next && previous && next.metadata.generation === previous.metadata.generation) return;
    const subnet = next ?? previous;
    if (subnet) hints.hint(networkKeyOf(subnet));
  });
  views.routeTables.onChange((_key, next, previous) => {
    const table = next ?? previous;
    if (table) hints.hint(networkKeyOf(table));
  });
  const bothSides = (peering: Peering) => {
    hints.hint(networkKeyOf(peering));
    hints.hint(peerKeyOf(peering));
  };
  views.peerings.onChange((_key, next, previous) => {
    const peering = next ?? previous;
    if (peering) bothSides(peering);
  });
  views.networks.onChange((key, next, previous) => {
    if (next && previous && samePeer(next, previous)) return;
    for (const peering of views.peeringsByNetwork.keysOf(key)) hints.hint(otherSide(views, peering, "peer"));
    for (const peering of views.peeringsByPeer.keysOf(key)) hints.hint(otherSide(views, peering, "own"));
  });
  return hints;
}

function otherSide(views: AgentViews, key: string, side: "own" | "peer"): string {
  const peering = views.peerings.get(key);
  if (!peering) return "";
  return side === "own" ? networkKeyOf(peering) : peerKeyOf(peering);
}

/** For those it is joined to, nothing of the network differs. */
function samePeer(a: Network, b: Network): boolean {
  return (
    a.metadata.uid === b.metadata.uid &&
    a.metadata.deletedAt === b.metadata.deletedAt &&
    a.status.cidr === b.status.cidr &&
    a.status.ipv6Cidr === b.status.ipv6Cidr
  );
}
