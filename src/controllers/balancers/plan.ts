import { jsonEquals } from "../../core/json.ts";
import type { Host } from "../../kinds/host.ts";
import type { BalancerTarget, LoadBalancer } from "../../kinds/load-balancer.ts";
import { placeImage } from "../../placement/placement.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import { type Candidate, targetsOf } from "./targets.ts";

export interface BalancerWorld {
  balancer: LoadBalancer | undefined;
  /** Members of its group, or the instances that it names. */
  candidates: readonly Candidate[];
  /** Looked at only while it has no host. */
  hosts: readonly Host[];
  /** Balancers of each host. */
  balancers: ReadonlyMap<string, number>;
}

/** What the control plane decides of a balancer's status; the rest of it is the host's. */
export interface BalancerDecision {
  type: "decide";
  balancer: LoadBalancer;
  host: string | undefined;
  targets: BalancerTarget[];
  /** Why it has no host. */
  message: string | undefined;
}

export function planBalancer(world: BalancerWorld): Plan<BalancerDecision, never> {
  const { balancer } = world;
  if (!balancer || balancer.metadata.deletedAt !== undefined) return { status: undefined, actions: [] };
  const { status } = balancer;
  const placed = status.host === undefined ? place(world) : { host: status.host };
  const host = "host" in placed ? placed.host : undefined;
  const message = "message" in placed ? placed.message : undefined;
  const targets = targetsOf(balancer, world.candidates);
  const same = host === status.host && jsonEquals(targets, status.targets);
  if (same && (message === undefined || message === status.message))
    return { status: undefined, actions: [] };
  return { status: undefined, actions: [{ type: "decide", balancer, host, targets, message }] };
}

function place({ hosts, balancers }: BalancerWorld): { host: string } | { message: string } {
  const use = { cpus: 0, memoryMib: 0, instances: 0 };
  return placeImage(
    hosts.map((host) => ({ host, use })),
    balancers,
  );
}
