/** Where a packet of a subnet goes: its network's own range first, then the subnet's table or the network's defaults. */
import { formatIp, type IpAddress, parseRange } from "../../core/ip-range.ts";
import type { Network } from "../network.ts";
import type { Route } from "../route-table.ts";
import type { NetworkWorld } from "./world.ts";
import { isIn, isLocal, named, type PeerLink, peerLinksOf, projectOf, rangesOf } from "./world.ts";

export type RouteTaken =
  | { target: "local" | "internet" | "none"; text: string }
  | { target: "peering"; link: PeerLink; text: string };

/** `subnet`: the sender's, by name. */
export function routeFor(
  world: NetworkWorld,
  network: Network,
  subnet: string,
  destination: IpAddress,
): RouteTaken {
  const title = network.metadata.name;
  if (isLocal(network, destination)) {
    const range = rangesOf(network).find((one) => isIn(one, destination));
    return {
      target: "local",
      text: `${formatIp(destination)} is in ${range}, the range of network ${title}`,
    };
  }
  const project = projectOf(network);
  const table = named(world.subnets, project, subnet)?.spec.routeTable;
  return table === undefined
    ? defaultRoute(world, network, subnet, destination)
    : routeOfTable(world, network, table, destination);
}

/** The most specific route that leads to the address. */
export function longestMatch(routes: readonly Route[], destination: IpAddress): Route | undefined {
  const length = (route: Route) => parseRange(route.destination)?.range.prefixLength ?? -1;
  return routes
    .filter((route) => isIn(route.destination, destination))
    .reduce<Route | undefined>((best, one) => (best && length(best) >= length(one) ? best : one), undefined);
}

function routeOfTable(
  world: NetworkWorld,
  network: Network,
  name: string,
  destination: IpAddress,
): RouteTaken {
  const shown = formatIp(destination);
  const table = named(world.routeTables, projectOf(network), name);
  const route = longestMatch(table?.spec.routes ?? [], destination);
  if (!route) return { target: "none", text: `route table ${name} has no route to ${shown}` };
  const said = `route table ${name} has ${route.destination}`;
  if (route.target === "internet") return { target: "internet", text: `${said} to the outside` };
  if (route.target === "none") return { target: "none", text: `${said} refused` };
  const link = peerLinksOf(world, network).find((one) => one.peering.metadata.name === route.via);
  return link
    ? { target: "peering", link, text: `${said} by peering ${route.via}` }
    : { target: "none", text: `${said} by peering ${route.via}, which does not exist` };
}

function defaultRoute(
  world: NetworkWorld,
  network: Network,
  subnet: string,
  destination: IpAddress,
): RouteTaken {
  const link = peerLinksOf(world, network).find(
    ({ other, active }) => active && other !== undefined && isLocal(other, destination),
  );
  const by = `subnet ${subnet} has no route table, so the network's own routes count:`;
  if (link) return { target: "peering", link, text: `${by} peering ${link.peering.metadata.name}` };
  const { name } = network.metadata;
  return network.spec.internet
    ? { target: "internet", text: `${by} network ${name} has a way to the outside` }
    : {
        target: "none",
        text: `${by} network ${name} has none to ${formatIp(destination)} (internet: false)`,
      };
}
