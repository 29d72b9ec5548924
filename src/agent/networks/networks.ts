/**
 * Keeps the virtual networks of this host: makes them when an instance needs them, mends them when something of them
 * broke, takes them away when they are deleted. The range and the addresses are the API's decision; here they are only
 * carried out.
 */
import { toStrataError } from "../../core/errors.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import { type NetworkStatus, networkKind } from "../../kinds/network.ts";
import { Hints } from "../../reconcile/hints.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { type NetworkAction, type NetworkWorld, planNetwork } from "./plan.ts";

export function createNetworkReconciler(
  context: AgentContext,
): Reconciler<NetworkWorld, NetworkAction, NetworkStatus> {
  return new NetworkReconciler(context);
}

class NetworkReconciler implements Reconciler<NetworkWorld, NetworkAction, NetworkStatus> {
  readonly name = "networks";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  /** An instance came to this host or left it. */
  readonly #related = new Hints();
  /** By key, the uid of what was made here. */
  readonly #made = new Map<string, string>();
  /** Uids of those whose finalizer is gone; what the view still shows of them is old. */
  readonly #finalized = new Set<string>();

  constructor(context: AgentContext) {
    this.#context = context;
    const { networks, instances } = context.views;
    this.watches = [
      { name: "networks", urgent: true, keys: (signal) => networks.watchKeys(signal) },
      { name: "related", keys: (signal) => this.#related.keys(signal) },
      { name: "broken networks", keys: (signal) => this.#brokenKeys(signal) },
    ];
    instances.onChange((_key, next, previous) => {
      if (next && previous) return;
      const instance = next ?? previous;
      if (!instance) return;
      const { project = "" } = instance.metadata;
      this.#related.hint(resourceKey(networkKind, { project, name: instance.spec.network }));
    });
    networks.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        this.#finalized.delete(previous.metadata.uid);
    });
  }

  async observe(key: string): Promise<NetworkWorld> {
    const { views } = this.#context;
    const found = views.networks.get(key);
    const network = found && this.#finalized.has(found.metadata.uid) ? undefined : found;
    const madeUid = this.#made.get(key);
    const users = [...views.instancesByNetwork.keysOf(key)].flatMap(
      (user) => views.instances.get(user) ?? [],
    );
    return {
      key,
      network,
      users,
      made: network !== undefined && madeUid === network.metadata.uid,
      leftBehind: madeUid !== network?.metadata.uid ? madeUid : undefined,
    };
  }

  plan(world: NetworkWorld) {
    return planNetwork(world);
  }

  async execute(action: NetworkAction, signal: AbortSignal): Promise<void> {
    switch (action.type) {
      case "ensure":
        return this.#ensure(action, signal);
      case "remove":
        this.#context.attachments.doubt(action.uid);
        await this.#context.networks.remove(action.uid, signal);
        if (this.#made.get(action.key) === action.uid) this.#made.delete(action.key);
        return;
      case "finalize": {
        const { metadata } = action.network;
        const { client } = this.#context;
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

  /** Guests that were there before need their reservations back when the network was made anew; new ones make theirs. */
  async #ensure(action: Extract<NetworkAction, { type: "ensure" }>, signal: AbortSignal): Promise<void> {
    const { attachments, networks } = this.#context;
    const { uid, name, project } = action.network.metadata;
    await attachments.attach(action.network, signal);
    for (const { metadata, status } of action.users) {
      if (!status.nic || status.handle === undefined || metadata.deletedAt !== undefined) continue;
      signal.throwIfAborted();
      const { macAddress, ipAddress } = status.nic;
      await networks.reserve(uid, { uid: metadata.uid, hostname: metadata.name, macAddress, ipAddress });
    }
    this.#made.set(resourceKey(networkKind, { project: project ?? "", name }), uid);
  }

  async *#brokenKeys(signal: AbortSignal): AsyncGenerator<string> {
    const { networks, attachments, views } = this.#context;
    const events = networks.events(signal);
    // When it is called again, events may have been missed in between.
    for (const [key, uid] of [...this.#made]) {
      attachments.doubt(uid);
      this.#made.delete(key);
      yield key;
    }
    for await (const { uid } of events) {
      attachments.doubt(uid);
      const network = views.networks.byUid(uid);
      if (!network) continue;
      const key = resourceKey(networkKind, network.metadata as Ref);
      this.#made.delete(key);
      yield key;
    }
  }
}
