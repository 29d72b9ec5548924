/** Where a balancer leads to. Pure. */
import type { Instance } from "../../kinds/instance.ts";
import type { BalancerTarget, LoadBalancer } from "../../kinds/load-balancer.ts";
import { balancerLimits } from "../../kinds/load-balancer.ts";

export interface Candidate {
  instance: Instance;
  /** Uid of the network of its own card. */
  network: string | undefined;
}

/**
 * Members that serve and are Ready; instances named by themselves when they are Ready. What is to leave stays listed as
 * draining while it is there, if it was listed before: then it may still have requests.
 */
export function targetsOf(balancer: LoadBalancer, candidates: readonly Candidate[]): BalancerTarget[] {
  const listed = new Set(balancer.status.targets.map(({ uid }) => uid));
  const targets: BalancerTarget[] = [];
  for (const { instance, network } of candidates) {
    const { uid, name, deletedAt } = instance.metadata;
    const address = instance.status.nic?.ipAddress;
    if (address === undefined || network === undefined) continue;
    const leaves = deletedAt !== undefined || instance.status.member?.phase === "draining";
    if (leaves ? !listed.has(uid) : !gets(balancer, instance)) continue;
    targets.push({ uid, name, address, port: balancer.spec.targetPort, network, draining: leaves });
  }
  // Those that came first keep their place when there are too many.
  targets.sort((a, b) => Number(listed.has(b.uid)) - Number(listed.has(a.uid)) || (a.name < b.name ? -1 : 1));
  return targets.slice(0, balancerLimits.maxTargets);
}

function gets({ spec }: LoadBalancer, { status }: Instance): boolean {
  if (spec.group !== undefined && status.member?.phase !== "serving") return false;
  return isReady(status);
}

export function isReady(status: Instance["status"]): boolean {
  return status.conditions.some(({ type, status: value }) => type === "Ready" && value === "true");
}

/** False: nothing that targets are made of differs. */
export function concernsTargets(next: Instance, previous: Instance): boolean {
  return (
    next.metadata.uid !== previous.metadata.uid ||
    next.metadata.deletedAt !== previous.metadata.deletedAt ||
    next.status.member?.phase !== previous.status.member?.phase ||
    next.status.nic?.ipAddress !== previous.status.nic?.ipAddress ||
    isReady(next.status) !== isReady(previous.status)
  );
}
