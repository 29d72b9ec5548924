/**
 * Would a step policy swing for ever under a constant load? Where the load of each member is the whole load divided by their
 * number (cpu, requests, custom), that can be computed: from every size at which a step begins to apply, follow the sizes that
 * come of it; if they come round to where they were, the policy swings. Memory, latency and queues do not divide like that.
 */
import type { GroupSpec } from "../group.ts";
import type { StepPolicy } from "./policy-schema.ts";
import { stepAt } from "./wishes.ts";

type Limits = Pick<GroupSpec, "min" | "max" | "behavior">;

/** Sizes that are looked at: the smaller a group, the more one member changes. */
const maxSizes = 64;
/** Of a value, to be just below it. */
const justBelow = 1 - 1e-9;

/** How it swings, in words; undefined when it does not, or nobody can know. */
export function swing(policy: StepPolicy, limits: Limits): string | undefined {
  if (policy.metric !== "cpu" && policy.metric !== "requests" && !policy.metric.startsWith("custom/")) {
    return undefined;
  }
  const edges = new Set(policy.steps.flatMap(({ from, below }) => [from ?? [], below ?? []].flat()));
  const largest = Math.min(limits.max, limits.min + maxSizes);
  for (let size = Math.max(1, limits.min); size <= largest; size++) {
    for (const edge of edges) {
      for (const load of [edge * size, edge * size * justBelow]) {
        const next = follow(policy, limits, load, size);
        if (next !== undefined) return described(policy, load, size, next);
      }
    }
  }
  return undefined;
}

/** The size after `start`, when the sizes come back to `start`. */
function follow(policy: StepPolicy, limits: Limits, load: number, start: number): number | undefined {
  const first = sizeAfter(policy, limits, load, start);
  const seen = new Set<number>();
  for (let size = first; size !== start && !seen.has(size); ) {
    seen.add(size);
    size = sizeAfter(policy, limits, load, size);
    if (size === start) return first;
  }
  return undefined;
}

function sizeAfter(policy: StepPolicy, { min, max, behavior }: Limits, load: number, size: number): number {
  const change = stepAt(policy.steps, load / size)?.change ?? 0;
  const paced = Math.max(-behavior.inStep, Math.min(behavior.outStep, change));
  return Math.max(1, min, Math.min(max, size + paced));
}

function described({ metric }: StepPolicy, load: number, size: number, next: number): string {
  const each = (count: number) => String(Number((load / count).toPrecision(4)));
  return (
    `would swing for ever: ${each(size)} ${metric} each at ${size} leads to ${next}, where the same load is ` +
    `${each(next)} each and leads back; leave more room between the ranges that scale out and in`
  );
}
