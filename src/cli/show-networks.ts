/** How networks and what belongs to them look in a table. Pure. */
import type { Address } from "../kinds/address.ts";
import type { Network } from "../kinds/network.ts";
import type { NetworkInterface } from "../kinds/network-interface.ts";
import type { Peering } from "../kinds/peering.ts";
import type { PublishedPort } from "../kinds/published-port.ts";
import type { Route, RouteTable } from "../kinds/route-table.ts";
import type { SecurityGroup } from "../kinds/security-group.ts";
import type { Subnet } from "../kinds/subnet.ts";
import { stateCell, type TableForm } from "./show.ts";

export const networkForm: TableForm<Network> = {
  columns: ["NAME", "STATE", "RANGE", "IPV6 RANGE", "OUTSIDE", "DOMAIN"],
  row: (network) => [
    network.metadata.name,
    stateCell(network, network.status.state),
    network.status.cidr ?? network.spec.cidr ?? "",
    network.status.ipv6Cidr ?? network.spec.ipv6Cidr ?? "",
    network.spec.internet ? "yes" : "no",
    network.status.domain ?? "",
  ],
};

export const subnetForm: TableForm<Subnet> = {
  columns: ["NAME", "NETWORK", "RANGE", "GATEWAY", "IPV6 RANGE", "ROUTE TABLE"],
  row: ({ metadata, spec, status }) => [
    metadata.name,
    spec.network,
    spec.cidr,
    status.gateway ?? "",
    status.ipv6Cidr ?? spec.ipv6Cidr ?? "",
    spec.routeTable ?? "",
  ],
};

export const routeTableForm: TableForm<RouteTable> = {
  columns: ["NAME", "NETWORK", "ROUTES"],
  row: ({ metadata, spec }) => [metadata.name, spec.network, spec.routes.map(routeText).join(", ") || "none"],
};

export function routeText(route: Route): string {
  return `${route.destination} ${route.target === "peering" ? `by peering ${route.via}` : route.target}`;
}

export const peeringForm: TableForm<Peering> = {
  columns: ["NAME", "STATE", "NETWORK", "PEER", "MESSAGE"],
  row: (peering) => {
    const { network, peerNetwork, peerProject } = peering.spec;
    const peer = peerProject === undefined ? peerNetwork : `${peerProject}/${peerNetwork}`;
    const state = stateCell(peering, peering.status.state);
    return [peering.metadata.name, state, network, peer, peering.status.message];
  },
};

export const securityGroupForm: TableForm<SecurityGroup> = {
  columns: ["NAME", "RULES IN", "RULES OUT", "DESCRIPTION"],
  row: ({ metadata, spec }) => [
    metadata.name,
    String(spec.ingress.length),
    String(spec.egress.length),
    spec.description,
  ],
};

export const interfaceForm: TableForm<NetworkInterface> = {
  columns: ["NAME", "STATE", "NETWORK", "SUBNET", "ADDRESS", "INSTANCE", "SECURITY GROUPS"],
  row: (one) => [
    one.metadata.name,
    stateCell(one, one.status.state),
    one.spec.network,
    one.status.subnet ?? one.spec.subnet ?? "",
    one.status.ipAddress ?? one.spec.ipAddress ?? "",
    one.spec.instance ?? "",
    one.spec.securityGroups.join(", "),
  ],
};

export const addressForm: TableForm<Address> = {
  columns: ["NAME", "STATE", "ADDRESS", "INSTANCE", "MESSAGE"],
  row: (address) => [
    address.metadata.name,
    stateCell(address, address.status.state),
    address.status.ipAddress ?? address.spec.ipAddress ?? "",
    address.spec.instance ?? "",
    address.status.message,
  ],
};

export const publishedPortForm: TableForm<PublishedPort> = {
  columns: ["NAME", "STATE", "PORT", "LEADS TO", "MESSAGE"],
  row: (port) => [
    port.metadata.name,
    stateCell(port, port.status.state),
    `${port.spec.port}/${port.spec.protocol}`,
    `${port.spec.instance}:${port.spec.targetPort ?? port.spec.port}`,
    port.status.message,
  ],
};
