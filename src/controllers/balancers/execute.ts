import { hasCode } from "../../core/errors.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { fromStored, toStored } from "../../kinds/stored.ts";
import type { ControllerContext } from "../context.ts";
import type { BalancerDecision } from "./plan.ts";

const maxAttempts = 10;

/**
 * The host writes the same status all the time, other parts of it: a write that it overtook is made anew on what is there.
 * @throws Conflict when that does not end.
 */
export async function executeBalancerDecision(
  { store, caches }: Pick<ControllerContext, "store" | "caches">,
  { balancer, host, targets, message }: BalancerDecision,
): Promise<void> {
  const key = resourceKey(loadBalancerKind, balancer.metadata as Ref);
  let current = balancer;
  for (let attempt = 1; ; attempt++) {
    const status = {
      ...current.status,
      targets,
      ...(host === undefined ? {} : { host }),
      ...(message === undefined ? {} : { message: message.slice(0, 1000) }),
    };
    const next: LoadBalancer = { ...current, status };
    try {
      const { revision } = current.metadata;
      const written = await store.commit([{ put: key, value: toStored(next), ifRevision: revision }]);
      caches.loadBalancers.learn(key, { ...next, metadata: { ...next.metadata, revision: written } });
      return;
    } catch (error) {
      if (!hasCode(error, "Conflict") || attempt >= maxAttempts) throw error;
    }
    const entry = await store.get(key);
    const found = entry && fromStored<LoadBalancer>(entry);
    if (found?.metadata.uid !== balancer.metadata.uid) return;
    current = found;
  }
}
