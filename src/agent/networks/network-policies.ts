/**
 * Carries the policies of this host's networks out: cards, groups, published ports, addresses. A network's policy is
 * always computed as a whole from what the views know and given to the host, which finds the difference; changes that
 * come while one is carried out wait and go together.
 *
 * Invariants: one policy of a network is carried out at a time; `apply` resolves only when what was known at its call
 * is in force; the cards of an instance or an interface that was released do not come back while the API still tells
 * of it.
 */
import { hasCode } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { NetworkPolicy, Networks } from "../../host/networks/networks.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import { type AgentViews, instanceKeyOf, networkKeyOf } from "../views.ts";
import { type Departed, policySources, requestFor } from "./contents.ts";
import type { NetworkAttachments } from "./network-attachments.ts";
import { networkPolicy, type Publication, publicationOfAddress, publicationOfPort } from "./policy.ts";
import { PublicationClaims } from "./publication-claims.ts";

export interface NetworkPoliciesOptions {
  views: AgentViews;
  networks: Networks;
  attachments: NetworkAttachments;
  /** Aborts when the agent stops. */
  signal: AbortSignal;
}

interface State {
  /** Counts changes; what was computed at a count below it is old. */
  wanted: number;
  /** The count whose policy is in force. */
  done: number;
  run: { count: number; promise: Promise<void> } | undefined;
  /** Names of the groups in the last policy that was computed. */
  groups: ReadonlySet<string>;
  /** What is in force of published ports and addresses: where each leads, by its name. */
  published: ReadonlyMap<string, string>;
}

type Published = Parameters<typeof instanceKeyOf>[0];

export class NetworkPolicies {
  /** Keys of networks whose policy is to be applied. */
  readonly hints = new Hints();
  readonly #options: NetworkPoliciesOptions;
  readonly #states = new Map<string, State>();
  readonly #claims = new PublicationClaims();
  readonly #departedInstances = new Set<string>();
  readonly #departedCards = new Set<string>();
  readonly departed: Departed = {
    instance: (uid) => this.#departedInstances.has(uid),
    card: (uid) => this.#departedCards.has(uid),
  };

  constructor(options: NetworkPoliciesOptions) {
    this.#options = options;
    this.#followInstances();
    this.#followRest();
  }

  /** Is everything that is known in force? */
  isInForce(key: string): boolean {
    const state = this.#states.get(key);
    return state !== undefined && state.done === state.wanted;
  }

  /** Does the published port or address lead there, in force? */
  isPublished(key: string, { name, leadsTo }: Publication): boolean {
    return this.#states.get(key)?.published.get(name) === leadsTo;
  }

  /** Keys of networks in which something of that name is in force. */
  publishersOf(name: string): string[] {
    return [...this.#states].filter(([, { published }]) => published.has(name)).map(([key]) => key);
  }

  /**
   * Resolves when all that the views know now is in force. The network must have been made.
   * @throws what Networks.apply throws.
   */
  async apply(key: string): Promise<void> {
    const state = this.#stateOf(key);
    const count = state.wanted;
    while (state.done < count) {
      const { run } = state;
      if (run && run.count >= count) await run.promise;
      else if (run) await run.promise.catch(() => {});
      else await this.#begin(key, state);
    }
  }

  /** The host may have lost it. */
  doubt(key: string): void {
    const state = this.#states.get(key);
    if (!state) return;
    state.done = 0;
    this.#change(key);
  }

  /** Nothing of it is left here. */
  forget(key: string): void {
    this.#states.delete(key);
    this.#keepPublished(key, new Set());
  }

  /** All cards of the instance go out of force, for good. Its guest must be gone. */
  async releaseInstance(instance: Instance, signal: AbortSignal): Promise<void> {
    this.#departedInstances.add(instance.metadata.uid);
    const keys = this.#keysOf(instance);
    for (const key of keys) this.#change(key);
    for (const key of keys) {
      await this.#applyWhereMade(key, signal);
      signal.throwIfAborted();
    }
  }

  /** The card goes out of force until `admitCard`. Its guest must have lost it. */
  async releaseCard(card: NetworkInterface, signal: AbortSignal): Promise<void> {
    const key = networkKeyOf(card);
    this.#departedCards.add(card.metadata.uid);
    this.#change(key);
    await this.#applyWhereMade(key, signal);
  }

  /** The API knows that the card is nobody's: with its next instance it may be in force again. */
  admitCard(card: NetworkInterface): void {
    this.#departedCards.delete(card.metadata.uid);
  }

  /**
   * A network that this process has not made yet may be there all the same, made by the one before; one that is not
   * there has nothing in force, and need not be made for that.
   */
  async #applyWhereMade(key: string, signal: AbortSignal): Promise<void> {
    const { views, networks, attachments } = this.#options;
    const network = views.networks.get(key);
    if (!network) return;
    const { uid } = network.metadata;
    if (!attachments.isKnown(uid)) {
      if (!(await networks.list()).includes(uid)) return;
      const request = requestFor(views, network);
      try {
        if (request) await attachments.attach(request, signal);
      } catch (error) {
        // As long as the host refuses the network, no guest starts in it; and once it does not, all is applied anew.
        if (hasCode(error, "Conflict")) return;
        throw error;
      }
    }
    await this.apply(key);
  }

  #begin(key: string, state: State): Promise<void> {
    const count = state.wanted;
    const promise = this.#carryOut(key, state, count).finally(() => {
      state.run = undefined;
    });
    state.run = { count, promise };
    return promise;
  }

  async #carryOut(key: string, state: State, count: number): Promise<void> {
    const { views, networks, signal } = this.#options;
    const network = views.networks.get(key);
    if (network) {
      const { policy: whole, groups } = networkPolicy(policySources(views, network, this.departed));
      state.groups = groups;
      const mine = this.#claims.claim(key, publicationsOf(whole).keys());
      const policy = withPublications(whole, mine);
      await networks.apply(network.metadata.uid, policy, signal);
      state.published = publicationsOf(policy);
      this.#keepPublished(key, mine);
    }
    // A doubt that came meanwhile has raised what is wanted, and so is not lost.
    state.done = count;
  }

  #keepPublished(key: string, names: ReadonlySet<string>): void {
    for (const waiting of this.#claims.keep(key, names)) this.#change(waiting);
  }

  #stateOf(key: string): State {
    let state = this.#states.get(key);
    if (!state) {
      state = { wanted: 1, done: 0, run: undefined, groups: noGroups, published: nothing };
      this.#states.set(key, state);
    }
    return state;
  }

  #change(key: string): void {
    this.#stateOf(key).wanted++;
    this.hints.hint(key);
  }

  /** Of all networks that the instance has cards in. */
  #keysOf(instance: Instance): Set<string> {
    const { views } = this.#options;
    const keys = new Set([networkKeyOf(instance)]);
    for (const key of views.interfacesByPlug.keysOf(views.instances.keyOf(instance))) {
      const card = views.interfaces.get(key);
      if (card) keys.add(networkKeyOf(card));
    }
    return keys;
  }

  #followInstances(): void {
    const { instances } = this.#options.views;
    instances.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid) {
        // Its cards have gone out of force before.
        if (this.#departedInstances.delete(previous.metadata.uid) && !next) return;
      }
      if (next && previous && sameCard(next, previous)) return;
      const instance = next ?? previous;
      if (instance) for (const key of this.#keysOf(instance)) this.#change(key);
    });
  }

  #followRest(): void {
    const { views } = this.#options;
    views.networks.onChange((key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid) this.forget(key);
    });
    views.interfaces.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid) {
        this.#departedCards.delete(previous.metadata.uid);
      }
      const plugged = next?.status.instance !== undefined || previous?.status.instance !== undefined;
      const card = next ?? previous;
      if (!plugged || !card || this.departed.card(card.metadata.uid)) return;
      if (!next || !previous || !samePlug(next, previous)) this.#change(networkKeyOf(card));
    });
    views.securityGroups.onChange((_key, next, previous) => {
      if (next && previous && next.metadata.generation === previous.metadata.generation) return;
      const metadata = (next ?? previous)?.metadata;
      if (metadata) this.#changeGroup(metadata.project ?? "", metadata.name);
    });
    const publisher = (resource: Published | undefined) => {
      const key = resource && instanceKeyOf(resource);
      const instance = key === undefined ? undefined : views.instances.get(key);
      if (instance) this.#change(networkKeyOf(instance));
    };
    for (const view of [views.publishedPorts, views.addresses]) {
      view.onChange((_key: string, next: Published | undefined, previous: Published | undefined) => {
        if (next && previous && next.metadata.generation === previous.metadata.generation) return;
        publisher(previous);
        publisher(next);
      });
    }
  }

  #changeGroup(project: string, name: string): void {
    for (const [key, { groups }] of this.#states) {
      if (groups.has(name) && this.#options.views.networks.get(key)?.metadata.project === project) {
        this.#change(key);
      }
    }
  }
}

const noGroups: ReadonlySet<string> = new Set();
const nothing: ReadonlyMap<string, string> = new Map();

function publicationsOf({ publishedPorts, addresses }: NetworkPolicy): ReadonlyMap<string, string> {
  const all = [...publishedPorts.map(publicationOfPort), ...addresses.map(publicationOfAddress)];
  return new Map(all.map(({ name, leadsTo }) => [name, leadsTo]));
}

function withPublications(policy: NetworkPolicy, names: ReadonlySet<string>): NetworkPolicy {
  return {
    ...policy,
    publishedPorts: policy.publishedPorts.filter((port) => names.has(publicationOfPort(port).name)),
    addresses: policy.addresses.filter((address) => names.has(publicationOfAddress(address).name)),
  };
}

/** Nothing that concerns the instance's cards differs. */
function sameCard(a: Instance, b: Instance): boolean {
  return (
    (a.status.nic === undefined) === (b.status.nic === undefined) &&
    (a.metadata.generation === b.metadata.generation ||
      (a.spec.metadata.enabled === b.spec.metadata.enabled &&
        a.spec.securityGroups.join() === b.spec.securityGroups.join()))
  );
}

function samePlug(a: NetworkInterface, b: NetworkInterface): boolean {
  return (
    a.status.instance === b.status.instance &&
    a.status.ipAddress === b.status.ipAddress &&
    a.spec.securityGroups.join() === b.spec.securityGroups.join()
  );
}
