import { toTimestamp } from "../../core/clock.ts";
import { type Address, addressKind } from "../../kinds/address.ts";
import { type Network, networkKind } from "../../kinds/network.ts";
import { type NetworkInterface, networkInterfaceKind } from "../../kinds/network-interface.ts";
import { type Peering, peeringKind } from "../../kinds/peering.ts";
import { type PublishedPort, publishedPortKind } from "../../kinds/published-port.ts";
import { type RouteTable, routeTableKind } from "../../kinds/route-table.ts";
import { type SecurityGroup, securityGroupKind } from "../../kinds/security-group.ts";
import { type Subnet, subnetKind } from "../../kinds/subnet.ts";
import { metadata, now } from "../instances/testing.ts";

/** Resources of networks for tests: named, admitted, all of one project. */

const named = (name: string, uid: string) => metadata(name, uid.padEnd(16, "0"));

export function networkOf(name: string, uid: string, change: Partial<Network["spec"]> = {}): Network {
  return {
    kind: "Network",
    metadata: named(name, uid),
    spec: { ...networkKind.spec.parse({}), ...change },
    status: {
      ...networkKind.initialStatus(),
      cidr: `10.${uid.codePointAt(0)}.0.0/16`,
      ipv6Cidr: `fd00:${uid.codePointAt(0)}::/48`,
      domain: `${name}.internal`,
    },
  };
}

export function subnetOf(name: string, index: number, change: Partial<Subnet["spec"]> = {}): Subnet {
  return {
    kind: "Subnet",
    metadata: named(name, `s${index}`),
    spec: { ...subnetKind.spec.parse({ network: "blue", cidr: `10.0.${index}.0/24` }), ...change },
    status: {
      index,
      gateway: `10.0.${index}.1`,
      ipv6Cidr: `fd00:0:0:${index}::/64`,
      ipv6Gateway: `fd00:0:0:${index}::1`,
    },
  };
}

export function routeTableOf(name: string, routes: RouteTable["spec"]["routes"]): RouteTable {
  return {
    kind: "RouteTable",
    metadata: named(name, "r"),
    spec: routeTableKind.spec.parse({ network: "blue", routes }),
    status: {},
  };
}

export function peeringOf(
  name: string,
  spec: { network: string; peerNetwork: string; peerProject?: string },
  state: Peering["status"]["state"] = "active",
): Peering {
  return {
    kind: "Peering",
    metadata: named(name, "p"),
    spec: peeringKind.spec.parse(spec),
    status: { state, message: "" },
  };
}

export function groupOf(name: string, spec: object = {}): SecurityGroup {
  return {
    kind: "SecurityGroup",
    metadata: named(name, `g-${name}`),
    spec: securityGroupKind.spec.parse({ egress: [], ...spec }),
    status: {},
  };
}

export function interfaceOf(
  name: string,
  spec: object = {},
  status: Partial<NetworkInterface["status"]> = {},
): NetworkInterface {
  return {
    kind: "NetworkInterface",
    metadata: named(name, `c-${name}`),
    spec: networkInterfaceKind.spec.parse({ network: "blue", ...spec }),
    status: {
      ...networkInterfaceKind.initialStatus(),
      subnet: "one",
      macAddress: "02:00:00:00:01:01",
      ipAddress: "10.0.0.101",
      ...status,
    },
  };
}

export function portOf(
  name: string,
  spec: object,
  status: Partial<PublishedPort["status"]> = {},
): PublishedPort {
  return {
    kind: "PublishedPort",
    metadata: named(name, `o-${name}`),
    spec: publishedPortKind.spec.parse(spec),
    status: { ...publishedPortKind.initialStatus(), ...status },
  };
}

export function addressOf(name: string, spec: object, status: Partial<Address["status"]> = {}): Address {
  return {
    kind: "Address",
    metadata: named(name, `a-${name}`),
    spec: addressKind.spec.parse(spec),
    status: { ...addressKind.initialStatus(), ipAddress: "203.0.113.7", ...status },
  };
}

export const deletedAt = { deletedAt: toTimestamp(now) };
