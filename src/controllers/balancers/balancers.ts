/**
 * Gives balancers a host, once, and tells them where they lead to. What an instance's change costs does not grow with
 * the number of others: it is looked up which balancers it concerns, and these look at their own members.
 */
import { Hints } from "../../core/hints.ts";
import { groupKind } from "../../kinds/group.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { networkKind } from "../../kinds/network.ts";
import { CacheIndex } from "../../reconcile/cache.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { executeBalancerDecision } from "./execute.ts";
import { type BalancerDecision, type BalancerWorld, planBalancer } from "./plan.ts";
import { type Candidate, concernsTargets } from "./targets.ts";

/** To be created before its caches are filled, because it indexes them. */
export function createBalancerReconciler(
  context: ControllerContext,
): Reconciler<BalancerWorld, BalancerDecision, never> {
  const { instances, loadBalancers, networks, hosts } = context.caches;
  const members = new CacheIndex(instances, groupOfMember);
  const balancersOfGroup = new CacheIndex(loadBalancers, groupOfBalancer);
  const balancersOfInstance = indexNames(context);
  const related = new Hints();
  instances.onChange((key, next, previous) => {
    if (next && previous && !concernsTargets(next, previous)) return;
    for (const one of balancersOfInstance(key)) related.hint(one);
    const group = groupOfMember((next ?? previous) as Instance);
    if (group !== undefined) for (const one of balancersOfGroup.keysOf(group)) related.hint(one);
  });
  hosts.onChange(() => {
    for (const [key, balancer] of entries(loadBalancers)) {
      if (balancer.status.host === undefined) related.hint(key);
    }
  });
  const candidate = (key: string): Candidate[] => {
    const instance = instances.get(key);
    const network = instance?.status.nic?.network;
    if (!instance || network === undefined) return [];
    const { project = "" } = instance.metadata;
    const found = networks.get(resourceKey(networkKind, { project, name: network }));
    return [{ instance, network: found?.metadata.uid }];
  };
  return {
    name: "balancers",
    watches: [
      { name: "balancers", urgent: true, keys: (signal) => loadBalancers.watchKeys(signal) },
      { name: "targets", urgent: true, keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      await Promise.all([instances.whenSynced(), networks.whenSynced(), hosts.whenSynced()]);
      const balancer = loadBalancers.get(key);
      const group = balancer && groupOfBalancer(balancer);
      const keys = group === undefined ? namedBy(balancer) : [...members.keysOf(group)];
      const unplaced = balancer !== undefined && balancer.status.host === undefined;
      return {
        balancer,
        candidates: keys.flatMap(candidate),
        hosts: unplaced ? [...hosts.values()] : [],
        balancers: unplaced ? countByHost(loadBalancers.values()) : new Map(),
      };
    },
    plan: planBalancer,
    execute: (action) => executeBalancerDecision(context, action),
  };
}

function groupOfMember({ metadata }: Instance): string | undefined {
  const { owner, project = "" } = metadata;
  return owner?.kind === groupKind.name ? resourceKey(groupKind, { project, name: owner.name }) : undefined;
}

function groupOfBalancer({ spec, metadata }: LoadBalancer): string | undefined {
  const { project = "" } = metadata;
  return spec.group === undefined ? undefined : resourceKey(groupKind, { project, name: spec.group });
}

function namedBy(balancer: LoadBalancer | undefined): string[] {
  const project = balancer?.metadata.project ?? "";
  return (balancer?.spec.instances ?? []).map((name) => resourceKey(instanceKind, { project, name }));
}

/** Keys of the balancers that name an instance, by the key of that. */
function indexNames({ caches }: ControllerContext): (instance: string) => Iterable<string> {
  const users = new Map<string, Set<string>>();
  caches.loadBalancers.onChange((key, next, previous) => {
    for (const name of namedBy(previous)) {
      const keys = users.get(name);
      keys?.delete(key);
      if (keys?.size === 0) users.delete(name);
    }
    for (const name of namedBy(next)) users.set(name, (users.get(name) ?? new Set()).add(key));
  });
  return (instance) => users.get(instance) ?? [];
}

function* entries(cache: ControllerContext["caches"]["loadBalancers"]): Generator<[string, LoadBalancer]> {
  for (const balancer of cache.values()) yield [cache.keyOf(balancer), balancer];
}

function countByHost(balancers: Iterable<LoadBalancer>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { status } of balancers) {
    if (status.host !== undefined) counts.set(status.host, (counts.get(status.host) ?? 0) + 1);
  }
  return counts;
}
