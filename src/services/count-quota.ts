import { StrataError } from "../core/errors.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { groupKind } from "../kinds/group.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { defaultCounts, type Project, projectKind } from "../kinds/project.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import type { Write } from "../store/store.ts";
import type { World } from "./hooks.ts";

/**
 * How many groups, load balancers, certificates and ports of the hosts a project may have; always bounded, because a host's
 * ports are few and everybody's. They are counted when one more is asked for: there are never many.
 *
 * `/allocations/counts/PROJECT` is rewritten by whoever adds something, so that two who counted the same cannot both add.
 * What is removed meanwhile makes a count too high at worst.
 */

type Counts = typeof defaultCounts;

const words: Record<keyof Counts, string> = {
  groups: "groups",
  loadBalancers: "load balancers",
  certificates: "certificates",
  hostPorts: "ports of the host",
};

/**
 * Joins the commit that adds so many.
 * @throws QuotaExceeded saying which bound, how many there are and how many more were asked for.
 */
export async function takeCounts(
  world: World,
  projectName: string,
  asked: Partial<Counts>,
  action: string,
): Promise<Write[]> {
  const names = (Object.keys(words) as (keyof Counts)[]).filter((name) => (asked[name] ?? 0) > 0);
  if (names.length === 0) return [];
  const entry = await world.store.get(keyOf(projectName));
  const project = await world.find(projectKind, { name: projectName });
  if (!project) throw new StrataError("NotFound", `cannot ${action}: project "${projectName}" is gone`);
  for (const name of names)
    check(project, name, await count(world, projectName, name), asked[name] ?? 0, action);
  return [{ put: keyOf(projectName), value: {}, ifRevision: entry?.revision ?? 0 }];
}

/** Joins the commit that takes a project out of the store. */
export function countsRemoval(project: string): Write {
  return { delete: keyOf(project) };
}

function check(project: Project, name: keyof Counts, used: number, asked: number, action: string): void {
  const limit = project.spec.quota[name] ?? defaultCounts[name];
  if (used + asked <= limit) return;
  throw new StrataError(
    "QuotaExceeded",
    `cannot ${action}: project "${project.metadata.name}" may have ${limit} ${words[name]}, has ${used}, and this asks ` +
      `for ${asked} more; delete some, or ask an administrator for a higher quota (quota.${name})`,
  );
}

async function count(world: World, project: string, name: keyof Counts): Promise<number> {
  switch (name) {
    case "groups":
      return sum(world, groupKind, project);
    case "loadBalancers":
      return sum(world, loadBalancerKind, project);
    case "certificates":
      return sum(world, certificateKind, project);
    case "hostPorts":
      return (
        (await sum(world, publishedPortKind, project)) +
        (await sum(world, loadBalancerKind, project, ({ spec }) => spec.listeners.length))
      );
  }
}

async function sum<S, T>(
  world: World,
  kind: Kind<S, T>,
  project: string,
  weight: (resource: Resource<S, T>) => number = () => 1,
): Promise<number> {
  let total = 0;
  for await (const resource of world.scan(kind, project)) total += weight(resource);
  return total;
}

function keyOf(project: string): string {
  return `/allocations/counts/${project}`;
}
