/** The groups that compete for the hosts and what the hosts can promise them, read through the API, and their plan. */
import type { Client } from "../../client/client.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { type Host, hostKind } from "../../kinds/host.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Capacity } from "../../kinds/scaling/arbiter.ts";
import type { PlannedGroup } from "../../kinds/scaling/plan-year.ts";
import { listVisible } from "../networks/read-world.ts";

export interface PlanWorld {
  groups: Group[];
  hosts: Host[];
  instances: Instance[];
}

/** All that the caller may see, of all projects: groups of one project get what those of another leave. */
export async function readPlanWorld(
  client: Client,
  project: string,
  signal: AbortSignal,
): Promise<PlanWorld> {
  const [own, all, hosts, instances] = await Promise.all([
    listVisible(client, groupKind, { project }, signal),
    listVisible(client, groupKind, {}, signal),
    listVisible(client, hostKind, {}, signal),
    listVisible(client, instanceKind, {}, signal),
  ]);
  const groups = all.length > 0 ? all : own;
  return { groups: groups.filter(({ metadata }) => metadata.deletedAt === undefined), hosts, instances };
}

/** Undefined where no host can be seen: then nobody knows what is missing. */
export function capacityForGroups({ hosts, instances }: PlanWorld): Capacity | undefined {
  if (hosts.length === 0) return undefined;
  const capacity = { cpus: 0, memoryMib: 0 };
  for (const { spec, status } of hosts) {
    if (spec.cordoned || status.state !== "ready") continue;
    capacity.cpus += Math.floor(status.allocatable.cpus * spec.cpuOvercommit);
    capacity.memoryMib += status.allocatable.memoryMib;
  }
  for (const { metadata, spec, status } of instances) {
    if (metadata.owner?.kind === groupKind.name || status.host === undefined) continue;
    capacity.cpus -= spec.cpus;
    capacity.memoryMib -= spec.memoryMib;
  }
  return { cpus: Math.max(0, capacity.cpus), memoryMib: Math.max(0, capacity.memoryMib) };
}

/** `NAME` in the caller's project, `PROJECT/NAME` elsewhere. */
function planKey({ metadata }: Group, project: string): string {
  return metadata.project === project ? metadata.name : `${metadata.project}/${metadata.name}`;
}

export function plannedGroup(group: Group, project: string): PlannedGroup {
  const { cpus, memoryMib } = group.spec.template;
  return { key: planKey(group, project), spec: group.spec, member: { cpus, memoryMib } };
}

/** The one that most calendars have; UTC without calendars. */
export function timeZoneOf(groups: readonly Group[]): string {
  const counts = new Map<string, number>();
  for (const { spec } of groups) {
    for (const policy of spec.policies) {
      if (policy.type !== "calendar") continue;
      counts.set(policy.calendar.timeZone, (counts.get(policy.calendar.timeZone) ?? 0) + 1);
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? "UTC";
}
