import { StrataError } from "../core/errors.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind, ResourceOf } from "../kinds/kind.ts";
import { networkInterfaceKind } from "../kinds/network-interface.ts";
import { defaultSecurityGroup, type SecurityGroup, securityGroupKind } from "../kinds/security-group.ts";
import type { Write } from "../store/store.ts";
import { groupsNaming } from "./group-users.ts";
import type { KindHooks, World } from "./hooks.ts";
import { closeReferences, References, refuseWhileUsed, rewriteGuard, usersInMessage } from "./references.ts";

type Hooks =
  ResourceOf<typeof securityGroupKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/**
 * Groups that rules name must exist. A group may name a thousand others, so what ties rules to groups is one key of the
 * project.
 */
export const securityGroupHooks: Hooks = {
  admit: async (group, world, action) => ({ writes: await checkRules(group, world, action) }),
  admitUpdate: (next, _previous, world, action) => checkRules(next, world, action),
  async closing(group, world) {
    return [...(await closeReferences(group, world)), await groupsGuard(group, world)];
  },
  async checkDelete(group, world, mode) {
    if (mode.withProject) return;
    const { name } = group.metadata;
    if (name === defaultSecurityGroup) {
      throw new StrataError(
        "Conflict",
        `cannot delete security group "${name}": every project has it; change its rules instead`,
      );
    }
    refuseWhileUsed(`security group "${name}"`, await usersOf(group, world), "take it off those first");
  },
};

/** The rules of the group that every project comes with: its members may talk to one another, and to everybody. */
export function defaultGroupSpec(): SecurityGroup["spec"] {
  return securityGroupKind.spec.parse({
    description: "Instances that have it may talk to one another.",
    ingress: [{ protocol: "any", group: defaultSecurityGroup }],
  });
}

/** @throws Invalid with an error for each rule that names no group. */
async function checkRules(group: SecurityGroup, world: World, action: string): Promise<Write[]> {
  const { name, project = "" } = group.metadata;
  const rules = (["ingress", "egress"] as const).flatMap((direction) =>
    group.spec[direction].map((rule, index) => ({ rule, path: `spec.${direction}[${index}].group` })),
  );
  const named = rules.filter(({ rule }) => rule.group !== undefined && rule.group !== name);
  if (named.length === 0) return [];
  const guard = await groupsGuard(group, world);
  const references = new References(world, project);
  const known = new Set<string>();
  for (const { rule, path } of named) {
    if (rule.group === undefined || known.has(rule.group)) continue;
    if (await references.peek(securityGroupKind, rule.group, path)) known.add(rule.group);
    // One request has room for a handful of errors; the rest need no look-up.
    if (references.errors.length >= usersInMessage) break;
  }
  references.check(action);
  return [guard];
}

function groupsGuard({ metadata: { project = "" } }: SecurityGroup, world: World): Promise<Write> {
  return rewriteGuard(securityGroupKind as Kind, project, world);
}

/** What has the group or names it in a rule, a few. */
async function usersOf(group: SecurityGroup, world: World): Promise<string[]> {
  const { name, project } = group.metadata;
  const users: string[] = [];
  for (const [kind, word] of [
    [instanceKind, "instance"],
    [networkInterfaceKind, "network interface"],
  ] as const) {
    for await (const { metadata, spec } of world.scan<{ securityGroups: string[] }, unknown>(
      kind as never,
      project,
    )) {
      if (spec.securityGroups.includes(name)) users.push(`${word} "${metadata.name}"`);
      if (users.length > usersInMessage) return users;
    }
  }
  users.push(...(await groupsNaming(group, world, (template) => template.securityGroups)));
  for await (const { metadata, spec } of world.scan(securityGroupKind, project)) {
    const named = [...spec.ingress, ...spec.egress].some((rule) => rule.group === name);
    if (named && metadata.name !== name) users.push(`a rule of security group "${metadata.name}"`);
    if (users.length > usersInMessage) return users;
  }
  return users;
}
