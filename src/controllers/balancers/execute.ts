import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import type { ControllerContext } from "../context.ts";
import { rewriteStatus } from "../rewrite-status.ts";
import type { BalancerDecision } from "./plan.ts";

/** The host writes the same status all the time, other parts of it. */
export async function executeBalancerDecision(
  { store, caches }: Pick<ControllerContext, "store" | "caches">,
  { balancer, host, targets, message }: BalancerDecision,
): Promise<void> {
  await rewriteStatus(store, loadBalancerKind, caches.loadBalancers, balancer, (status) => ({
    ...status,
    targets,
    ...(host === undefined ? {} : { host }),
    ...(message === undefined ? {} : { message: message.slice(0, 1000) }),
  }));
}
