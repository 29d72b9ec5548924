import { StrataError } from "../core/errors.ts";
import { formatMib } from "../core/units.ts";
import { type Instance, type InstanceSpec, instanceKind } from "../kinds/instance.ts";
import type { Project } from "../kinds/project.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import type { World } from "./hooks.ts";

/**
 * A project's quota over its instances and volumes (of what is merely counted: count-quota.ts), exact under any race and free where there is none.
 *
 * `/allocations/quota/PROJECT` exists exactly while the project has a quota; it is written with the project. Without
 * it, creating and removing an instance only assert its absence (a delete that expects revision 0), so projects
 * without quota have no hot key. With it, each of them rewrites it. It starts as `counting`: the first create after
 * that counts the instances there are, and any change meanwhile makes its commit fail and count again.
 */

const summed = ["instances", "cpus", "memoryMib", "diskMib"] as const;
type Quota = Pick<Project["spec"]["quota"], (typeof summed)[number]>;
type Amounts = Required<{ [K in keyof Quota]: number }>;
type Usage = Amounts | { counting: true };

const nothing: Amounts = { instances: 0, cpus: 0, memoryMib: 0, diskMib: 0 };

/** Joins the commit that creates a project or changes its spec. */
export function quotaWrites(project: string, next: Quota, previous: Quota): Write[] {
  const had = hasQuota(previous);
  if (hasQuota(next) === had) return [];
  const key = keyOf(project);
  return had ? [{ delete: key }] : [{ put: key, value: { counting: true } }];
}

/** Joins the commit that takes a project out of the store. */
export function quotaRemoval(project: string): Write {
  return { delete: keyOf(project) };
}

/**
 * Joins the commit that creates an instance, together with `volumesMib` of further volumes, or that changes one from
 * `previous`.
 * @throws QuotaExceeded saying which bound, how much is used and how much more was asked for.
 */
export async function takeQuota(
  world: World,
  project: Project,
  change: { next: InstanceSpec; previous?: InstanceSpec; volumesMib?: number },
  action: string,
): Promise<Write> {
  const { next, previous, volumesMib: diskMib = 0 } = change;
  const asked = previous ? add(amountsOf(next), amountsOf(previous), -1) : amountsOf(next);
  return take(world, project, add(asked, { ...nothing, diskMib }, 1), action);
}

/** The same for a volume beside the root ones, which are counted with their instance. */
export function takeDisk(world: World, project: Project, mib: number, action: string): Promise<Write> {
  return take(world, project, { ...nothing, diskMib: mib }, action);
}

async function take(world: World, project: Project, asked: Amounts, action: string): Promise<Write> {
  const key = keyOf(project.metadata.name);
  const entry = await world.store.get(key);
  if (!entry) return { delete: key, ifRevision: 0 };
  const usage = entry.value as unknown as Usage;
  const used = "counting" in usage ? await count(world, project.metadata.name) : usage;
  checkQuota(project, used, asked, action);
  return { put: key, value: add(used, asked, 1), ifRevision: entry.revision };
}

/** Joins the commit that takes an instance out of the store. */
export function releaseQuota(world: World, instance: Instance): Promise<Write> {
  return release(world, instance.metadata.project ?? "", amountsOf(instance.spec));
}

/** Joins the commit that takes a volume out of the store. */
export function releaseDisk(world: World, project: string, mib: number): Promise<Write> {
  return release(world, project, { ...nothing, diskMib: mib });
}

async function release(world: World, project: string, amounts: Amounts): Promise<Write> {
  const key = keyOf(project);
  const entry = await world.store.get(key);
  if (!entry) return { delete: key, ifRevision: 0 };
  const usage = entry.value as unknown as Usage;
  const value = "counting" in usage ? usage : add(usage, amounts, -1);
  return { put: key, value, ifRevision: entry.revision };
}

function checkQuota(project: Project, used: Amounts, asked: Amounts, action: string): void {
  const { quota } = project.spec;
  for (const name of summed) {
    const limit = quota[name];
    if (limit === undefined || asked[name] <= 0 || used[name] + asked[name] <= limit) continue;
    throw new StrataError(
      "QuotaExceeded",
      `cannot ${action}: project "${project.metadata.name}" may use ${show(name, limit)}, uses ` +
        `${show(name, used[name])}, and this asks for ${show(name, asked[name])}; delete instances, or ask an ` +
        "administrator for a higher quota",
    );
  }
}

async function count(world: World, project: string): Promise<Amounts> {
  let total = nothing;
  for await (const instance of world.scan(instanceKind, project)) {
    total = add(total, amountsOf(instance.spec), 1);
  }
  for await (const { spec } of world.scan(volumeKind, project)) {
    if (spec.role === "data") total = add(total, { ...nothing, diskMib: spec.sizeMib }, 1);
  }
  return total;
}

function amountsOf(spec: InstanceSpec): Amounts {
  return { instances: 1, cpus: spec.cpus, memoryMib: spec.memoryMib, diskMib: spec.diskMib };
}

function add(a: Amounts, b: Amounts, sign: 1 | -1): Amounts {
  return {
    instances: a.instances + sign * b.instances,
    cpus: a.cpus + sign * b.cpus,
    memoryMib: a.memoryMib + sign * b.memoryMib,
    diskMib: a.diskMib + sign * b.diskMib,
  };
}

function show(name: keyof Amounts, amount: number): string {
  if (name === "memoryMib") return `${formatMib(amount)} of memory`;
  if (name === "diskMib") return `${formatMib(amount)} of disk`;
  return `${amount} ${name}`;
}

function hasQuota(quota: Quota): boolean {
  return summed.some((name) => quota[name] !== undefined);
}

function keyOf(project: string): string {
  return `/allocations/quota/${project}`;
}
