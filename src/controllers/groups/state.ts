import type { Clock, Instant } from "../../core/clock.ts";
import { Hints } from "../../core/hints.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { CacheIndex } from "../../reconcile/cache.ts";
import type { ControllerCaches } from "../context.ts";
import { LostHosts } from "./lost-hosts.ts";
import { noSetbacks } from "./setbacks.ts";
import type { Setbacks } from "./world.ts";

type GroupCaches = Pick<ControllerCaches, "groups" | "hosts" | "instances" | "loadBalancers">;

/**
 * What the groups' controllers keep beside the caches: members by group and balancers by group, so that a change costs what
 * its own group costs; and what need not survive a restart.
 *
 * A member that was created and that no cache shows yet is kept as `fresh`, so that it is not created a second time.
 */
export class GroupState {
  readonly hints = new Hints();
  readonly #caches: GroupCaches;
  readonly #clock: Clock;
  readonly #members: CacheIndex<Instance>;
  readonly #balancers: CacheIndex<LoadBalancer>;
  /** By uid of the group, then by key of the instance; undefined while it is being created. */
  readonly #fresh = new Map<string, Map<string, Instance | undefined>>();
  readonly #lostHosts: LostHosts;
  readonly #begun = new Map<string, Instant>();
  readonly #setbacks = new Map<string, Setbacks>();
  readonly #decided = new Map<string, number>();
  readonly #gone = new Set<string>();

  constructor(caches: GroupCaches, clock: Clock) {
    this.#caches = caches;
    this.#clock = clock;
    this.#members = new CacheIndex(caches.instances, ownerOf);
    const membersOn = new CacheIndex(caches.instances, hostOfMember);
    this.#lostHosts = new LostHosts(caches.hosts, clock, (host) => {
      for (const key of membersOn.keysOf(host)) this.#hintGroupOf(caches.instances.get(key));
    });
    this.#balancers = new CacheIndex(caches.loadBalancers, groupKeyOf);
    caches.instances.onChange((key, next, previous) => this.#memberChanged(key, next, previous));
    caches.loadBalancers.onChange((_key, next, previous) => {
      if (next && previous && !drainingChanged(next, previous)) return;
      for (const balancer of [next, previous]) {
        const group = balancer && groupKeyOf(balancer);
        if (group !== undefined) this.hints.hint(group);
      }
    });
    caches.groups.onChange((_key, next, previous) => {
      if (next && previous?.metadata.generation !== next.metadata.generation) {
        this.#setbacks.delete(next.metadata.uid);
      }
      if (!previous || next?.metadata.uid === previous.metadata.uid) return;
      const { uid } = previous.metadata;
      for (const known of [this.#fresh, this.#setbacks, this.#decided]) known.delete(uid);
      this.#gone.delete(uid);
    });
  }

  /** All that the group owns, as far as it is known. */
  membersOf(group: Group): Instance[] {
    const { instances } = this.#caches;
    const { uid } = group.metadata;
    const known = [...this.#members.keysOf(uid)].flatMap((key) => instances.get(key) ?? []);
    const fresh = [...(this.#fresh.get(uid)?.values() ?? [])].filter((one) => one !== undefined);
    return [...known, ...fresh];
  }

  balancersOf(groupKey: string): LoadBalancer[] {
    const { loadBalancers } = this.#caches;
    return [...this.#balancers.keysOf(groupKey)].flatMap((key) => loadBalancers.get(key) ?? []);
  }

  /** When its host began with the instance, as far as this process saw. */
  begunAt(instance: Instance): Instant | undefined {
    const { uid } = instance.metadata;
    const known = this.#begun.get(uid);
    if (known !== undefined || instance.status.state === "pending") return known;
    const now = this.#clock.now();
    this.#begun.set(uid, now);
    return now;
  }

  /** Since when its host gives no sign of life, as far as this process saw. */
  lostAt({ status }: Instance): Instant | undefined {
    return this.#lostHosts.since(status.host);
  }

  /** Forgotten once a member is healthy that was not when the last one failed. */
  setbacksOf(group: Group, members: readonly Instance[]): Setbacks {
    const { uid } = group.metadata;
    const setbacks = this.#setbacks.get(uid);
    if (!setbacks) return noSetbacks;
    const recovered = members.some(
      ({ status }) => Date.parse(status.member?.readyAt ?? "") > setbacks.lastAt,
    );
    if (recovered) this.#setbacks.delete(uid);
    return recovered ? noSetbacks : setbacks;
  }

  setback(group: Group, why: string): void {
    const { uid } = group.metadata;
    const count = (this.#setbacks.get(uid)?.count ?? 0) + 1;
    this.#setbacks.set(uid, { count, lastAt: this.#clock.now(), why });
  }

  /** To be called before an instance of that key is created for the group; the result is told by what it returns. */
  expect(group: Group, key: string): (created: Instance | undefined) => void {
    const { uid } = group.metadata;
    const fresh = this.#fresh.get(uid) ?? new Map<string, Instance | undefined>();
    this.#fresh.set(uid, fresh);
    fresh.set(key, undefined);
    return (created) => {
      // The cache may have shown it already, and even its end.
      if (created && fresh.has(key)) fresh.set(key, created);
      else this.#forget(uid, key);
    };
  }

  /** The generation of its spec that its size was last decided for. */
  decidedOf({ metadata, status }: Group): number {
    return this.#decided.get(metadata.uid) ?? status.observedGeneration;
  }

  decide({ metadata }: Group): void {
    if (this.#decided.get(metadata.uid) === metadata.generation) return;
    this.#decided.set(metadata.uid, metadata.generation);
    this.hints.hint(resourceKey(groupKind, { project: metadata.project ?? "", name: metadata.name }));
  }

  /** The group was let go; what the cache still shows of it is old. */
  letGo(group: Group): void {
    this.#gone.add(group.metadata.uid);
  }

  isGone(group: Group): boolean {
    return this.#gone.has(group.metadata.uid);
  }

  #forget(groupUid: string, key: string): void {
    const fresh = this.#fresh.get(groupUid);
    fresh?.delete(key);
    if (fresh?.size === 0) this.#fresh.delete(groupUid);
  }

  #memberChanged(key: string, next: Instance | undefined, previous: Instance | undefined): void {
    const { owner } = (next ?? previous)?.metadata ?? {};
    if (owner?.kind !== groupKind.name) return;
    if (next) this.#forget(owner.uid, key);
    else if (previous) this.#begun.delete(previous.metadata.uid);
    if (next && previous && !memberChanged(next, previous)) return;
    this.#hintGroupOf(next ?? previous);
  }

  #hintGroupOf(member: Instance | undefined): void {
    const { owner, project = "" } = member?.metadata ?? {};
    if (owner?.kind === groupKind.name)
      this.hints.hint(resourceKey(groupKind, { project, name: owner.name }));
  }
}

function hostOfMember(instance: Instance): string | undefined {
  return ownerOf(instance) === undefined ? undefined : instance.status.host;
}

export function ownerOf({ metadata: { owner } }: Instance): string | undefined {
  return owner?.kind === groupKind.name ? owner.uid : undefined;
}

export function groupKeyOf({ metadata: { project = "" }, spec }: LoadBalancer): string | undefined {
  return spec.group === undefined ? undefined : resourceKey(groupKind, { project, name: spec.group });
}

/** What a plan looks at. Progress, addresses and handles are none of it. */
function memberChanged(next: Instance, previous: Instance): boolean {
  return outline(next) !== outline(previous);
}

function outline({ metadata, spec, status }: Instance): string {
  const ready = status.conditions.find((condition) => condition.type === "Ready");
  return [
    metadata.deletedAt !== undefined,
    spec.power,
    status.state,
    status.host,
    status.reason,
    status.recentCrashes,
    status.member?.phase,
    ready?.status,
    ready?.since,
  ].join();
}

function drainingChanged(next: LoadBalancer, previous: LoadBalancer): boolean {
  return (
    next.spec.group !== previous.spec.group ||
    JSON.stringify([next.status.servers, next.status.targets]) !==
      JSON.stringify([previous.status.servers, previous.status.targets])
  );
}
