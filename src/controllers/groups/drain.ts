/** When a member that leaves has finished what it was doing. Pure. */
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import type { Member } from "./classify.ts";

/**
 * For every balancer: its server is idle, or there is none of it any more, nor a target that would become one. A server that
 * is down has no requests that could still succeed.
 */
export function isDrained(member: Member, balancers: readonly LoadBalancer[]): boolean {
  const { uid } = member.instance.metadata;
  return balancers.every(({ status }) => {
    const server = status.servers[uid]?.state;
    if (server === "idle") return true;
    if (server === "down") return member.health !== "ready";
    return server === undefined && !status.targets.some((target) => target.uid === uid);
  });
}
