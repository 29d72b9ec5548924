import { contains, parseRange } from "../core/ip-range.ts";
import type { Kind, ResourceOf } from "../kinds/kind.ts";
import { networkKind } from "../kinds/network.ts";
import { peeringKind } from "../kinds/peering.ts";
import type { RouteTable, routeTableKind } from "../kinds/route-table.ts";
import { subnetKind } from "../kinds/subnet.ts";
import type { Write } from "../store/store.ts";
import type { KindHooks, World } from "./hooks.ts";
import { rangesOf } from "./network-ranges.ts";
import { closeReferences, References, refuseWhileUsed, rewriteGuard, usersInMessage } from "./references.ts";

type Hooks =
  ResourceOf<typeof routeTableKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/** Routes lead to peerings of the table's own network, and never to what is local anyway. */
export const routeTableHooks: Hooks = {
  admit: async (table, world, action) => ({ writes: await checkRoutes(table, world, action) }),
  admitUpdate: (next, _previous, world, action) => checkRoutes(next, world, action),
  closing: closeReferences,
  async checkDelete(table, world, mode) {
    if (mode.withProject) return;
    const { name, project } = table.metadata;
    const users: string[] = [];
    for await (const subnet of world.scan(subnetKind, project)) {
      if (subnet.spec.routeTable === name) users.push(`subnet "${subnet.metadata.name}"`);
      if (users.length > usersInMessage) break;
    }
    refuseWhileUsed(`route table "${name}"`, users, "give them another one, or none, first");
  },
};

/** @throws Invalid with an error for each route that could never work. */
async function checkRoutes(table: RouteTable, world: World, action: string): Promise<Write[]> {
  const { project = "" } = table.metadata;
  const { network: name, routes } = table.spec;
  const references = new References(world, project);
  const network = await references.find(networkKind, name, "spec.network");
  const local = network ? rangesOf(network) : [];
  const leads = routes.some((route) => route.via !== undefined);
  const guard = leads ? [await rewriteGuard(peeringKind as Kind, project, world)] : [];
  for (const [index, { destination, via }] of routes.entries()) {
    const path = `spec.routes[${index}]`;
    const range = parseRange(destination)?.range;
    const own = range && local.find((one) => contains(one, range));
    if (own) {
      const message = `is ${destination}, which is in network "${name}" itself, and that is always local`;
      references.errors.push({
        path: `${path}.destination`,
        message,
        allowed: "a range outside of the network",
      });
    }
    if (via === undefined) continue;
    const peering = await references.peek(peeringKind, via, `${path}.via`);
    if (!peering || joins(peering.spec, name, project)) continue;
    const message = `names "${via}", which is not a peering of network "${name}"`;
    references.errors.push({ path: `${path}.via`, message, allowed: `a peering of network "${name}"` });
  }
  references.check(action);
  return [...references.writes(), ...guard];
}

/** Within a project a peering belongs to both of its networks. */
function joins(
  spec: { network: string; peerNetwork: string; peerProject?: string | undefined },
  network: string,
  project: string,
): boolean {
  const { peerProject = project } = spec;
  return spec.network === network || (spec.peerNetwork === network && peerProject === project);
}
