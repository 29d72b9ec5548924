import { hasCode, StrataError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { groupKind } from "../kinds/group.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { closingKey, type Ref, resourcePrefix } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { peeringKind } from "../kinds/peering.ts";
import type { Project } from "../kinds/project.ts";
import { kinds } from "../kinds/registry.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { defaultSecurityGroup, type SecurityGroup, securityGroupKind } from "../kinds/security-group.ts";
import { subnetKind } from "../kinds/subnet.ts";
import { type Token, tokenKind } from "../kinds/token.ts";
import type { Write } from "../store/store.ts";
import { countsRemoval } from "./count-quota.ts";
import type { KindHooks, Verbs, World } from "./hooks.ts";
import type { ListQuery } from "./listing.ts";
import { admitNetwork, defaultNetworkName } from "./networks.ts";
import { systemPrincipal } from "./principal.ts";
import { quotaRemoval, quotaWrites } from "./quota.ts";
import type { Ranges } from "./ranges.ts";
import { guardKey } from "./references.ts";
import { defaultGroupSpec } from "./security-groups.ts";

/** The project that exists from the start. */
export const defaultProject = "default";

/**
 * A project is born with its network and its security group `default`. From the commit that marks it for deletion, a tombstone bars every
 * creation in it, also one that read the project just before; it stays until the name is used again.
 */
export function projectHooks(ranges: Ranges): KindHooks<Project["spec"], Project["status"]> {
  return {
    async admit(project, world, action) {
      const { name } = project.metadata;
      const network = newDefaultNetwork(project, world);
      const admission = await admitNetwork(ranges, network, world, action);
      const { createdAt } = project.metadata;
      return {
        dependants: [
          { ...network, status: admission.status },
          ...admission.dependants,
          newDefaultGroup(name, createdAt, world),
        ],
        writes: [
          ...admission.writes,
          ...quotaWrites(name, project.spec.quota, {}),
          { delete: closingKey(name) },
        ],
      };
    },
    async admitUpdate(next, previous) {
      return quotaWrites(next.metadata.name, next.spec.quota, previous.spec.quota);
    },
    async checkDelete(project, world, mode) {
      const { name } = project.metadata;
      if (mode.cascade) return checkNothingProtected(world, name);
      for (const kind of [groupKind, instanceKind, imageKind]) {
        const page = await world.store.list(resourcePrefix(kind, name), { limit: 1 });
        if (page.entries.length === 0) continue;
        throw new StrataError(
          "Conflict",
          `cannot delete project "${name}": it still has ${kind.plural}; delete them first, or ask for the deletion ` +
            "of everything in it (?cascade=true)",
        );
      }
    },
    deletion: async (project) => [{ put: closingKey(project.metadata.name), value: {} }],
    afterDelete: deleteContents,
    async removal(project, world) {
      const { name } = project.metadata;
      for (const kind of kinds) {
        if (kind.scope !== "project") continue;
        const page = await world.store.list(resourcePrefix(kind, name), { limit: 1 });
        if (page.entries.length === 0) continue;
        throw new StrataError(
          "Conflict",
          `project "${name}" cannot go yet: it still has ${kind.plural.replace(/-/g, " ")}; try again later`,
        );
      }
      const guarded = [securityGroupKind, peeringKind];
      return [
        quotaRemoval(name),
        countsRemoval(name),
        ...guarded.map((kind) => ({ delete: guardKey(kind, name) })),
      ];
    },
  };
}

/** Joins every commit that creates something in a project: it fails once the project is being deleted. */
export function notBeingDeleted(project: string): Write {
  return { delete: closingKey(project), ifRevision: 0 };
}

/** @throws Conflict naming an instance that is protected. */
async function checkNothingProtected(world: World, project: string): Promise<void> {
  for await (const instance of world.scan(instanceKind, project)) {
    if (!instance.spec.protected || instance.metadata.deletedAt !== undefined) continue;
    throw new StrataError(
      "Conflict",
      `cannot delete project "${project}": its instance "${instance.metadata.name}" is protected; ` +
        "set spec.protected of it to false first",
    );
  }
}

/**
 * Users before what they use, as in the registry's order reversed; but networks before their parts, so that hosts see
 * them end rather than lose what their last guests still need.
 */
const deletionOrder = (kinds.toReversed() as Kind[]).sort((a, b) => Number(isPart(a)) - Number(isPart(b)));

function isPart({ name }: Kind): boolean {
  return [subnetKind, routeTableKind, peeringKind, securityGroupKind].some((kind) => kind.name === name);
}

/** Everything in the project, and the tokens that open it. What is marked already is left alone. */
async function deleteContents(project: Project, verbs: Verbs): Promise<void> {
  const { name } = project.metadata;
  for (const kind of deletionOrder) {
    if (kind.scope !== "project" && kind.name !== tokenKind.name) continue;
    let after: string | undefined;
    do {
      const query: ListQuery = kind.scope === "project" ? { project: name } : {};
      if (after !== undefined) query.after = after;
      const page = await verbs.list(systemPrincipal, kind, query);
      for (const { metadata, spec } of page.items) {
        if (metadata.deletedAt !== undefined) continue;
        if (kind.scope === "cluster" && (spec as Token["spec"]).project !== name) continue;
        await deleteUnlessGone(verbs, kind, metadata as Ref);
      }
      after = page.next;
    } while (after !== undefined);
  }
}

async function deleteUnlessGone(verbs: Verbs, kind: Kind, ref: Ref): Promise<void> {
  try {
    await verbs.delete(systemPrincipal, kind, kind.scope === "cluster" ? { name: ref.name } : ref, {
      withProject: true,
    });
  } catch (error) {
    if (!hasCode(error, "NotFound")) throw error;
  }
}

function newDefaultNetwork(project: Project, world: World): Network {
  return {
    kind: networkKind.name,
    metadata: {
      name: defaultNetworkName,
      project: project.metadata.name,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt: project.metadata.createdAt,
      finalizers: [...networkKind.finalizers],
    },
    spec: networkKind.spec.parse({}),
    status: networkKind.initialStatus(),
  };
}

/** The security group that every project comes with. */
export function newDefaultGroup(project: string, createdAt: string, world: World): SecurityGroup {
  return {
    kind: securityGroupKind.name,
    metadata: {
      name: defaultSecurityGroup,
      project,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt,
      finalizers: [],
    },
    spec: defaultGroupSpec(),
    status: {},
  };
}
