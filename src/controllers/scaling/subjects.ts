import { type Group, groupKind } from "../../kinds/group.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { resourceKey, resourcePrefix } from "../../kinds/keys.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { neededSignals } from "../../kinds/scaling/signals.ts";
import type { ControllerCaches } from "../context.ts";
import { groupKeyOf } from "../groups/state.ts";
import { measuredAt } from "./signals.ts";

const needs = new WeakMap<Group["spec"], ReadonlySet<string>>();

/** Keys of the groups that have a policy which looks at samples of these subjects. */
export function subjectsOfGroups(
  { groups, instances, loadBalancers }: Pick<ControllerCaches, "groups" | "instances" | "loadBalancers">,
  subjects: Iterable<string>,
): Set<string> {
  const found = new Set<string>();
  if (![...groups.values()].some(({ spec }) => sourcesOf(spec).size > 0)) return found;
  const add = (key: string | undefined, measured: string) => {
    if (key === undefined || found.has(key)) return;
    const group = groups.get(key);
    if (group && sourcesOf(group.spec).has(measured)) found.add(key);
  };
  for (const subject of subjects) {
    if (subject.startsWith(instancePrefix)) {
      const { owner, project = "" } = instances.get(subject)?.metadata ?? {};
      if (owner?.kind === groupKind.name)
        add(resourceKey(groupKind, { project, name: owner.name }), "members");
    } else if (subject.startsWith(balancerPrefix)) {
      const balancer = loadBalancers.get(subject);
      add(balancer && groupKeyOf(balancer), "balancers");
    } else if (subject.startsWith(groupPrefix)) add(subject, "group");
  }
  return found;
}

const instancePrefix = resourcePrefix(instanceKind);
const balancerPrefix = resourcePrefix(loadBalancerKind);
const groupPrefix = resourcePrefix(groupKind);

function sourcesOf(spec: Group["spec"]): ReadonlySet<string> {
  const before = needs.get(spec);
  if (before) return before;
  const sources = new Set(neededSignals(spec).map(({ metric }) => measuredAt(metric)));
  needs.set(spec, sources);
  return sources;
}
