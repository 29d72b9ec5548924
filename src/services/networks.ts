import { StrataError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { formatIp, formatRange, parseRange } from "../core/ip-range.ts";
import { groupKind } from "../kinds/group.ts";
import { instanceKind } from "../kinds/instance.ts";
import { immutable } from "../kinds/kind.ts";
import type { Network, NetworkStatus } from "../kinds/network.ts";
import { networkInterfaceKind } from "../kinds/network-interface.ts";
import { peeringKind } from "../kinds/peering.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { type Subnet, subnetKind } from "../kinds/subnet.ts";
import type { Write } from "../store/store.ts";
import type { Addresses } from "./addresses.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { conflict } from "./parse.ts";
import { peeringGuardKey } from "./peerings.ts";
import type { Ranges } from "./ranges.ts";
import { closeReferences, refuseWhileUsed, usersInMessage } from "./references.ts";
import { subnetGuardKey, subnetStatus, subnetsOf } from "./subnets.ts";

/** The network that every project comes with. */
export const defaultNetworkName = "default";

/** A network's ranges, domain and (unless its user makes them) its subnet are settled in the commit that creates it. */
export function networkHooks(
  ranges: Ranges,
  addresses: Addresses,
): KindHooks<Network["spec"], NetworkStatus> {
  return {
    admit: (network, world, action) => admitNetwork(ranges, network, world, action),
    validateStatus: (next, previous) =>
      immutable(next, previous, ["cidr", "ipv6Cidr", "hostRoute", "domain"]).map((error) => ({
        ...error,
        path: error.path.replace(/^spec/, "status"),
      })),
    closing: closeReferences,
    async checkDelete(network, world, mode) {
      if (mode.withProject) return;
      refuseWhileUsed(`network "${network.metadata.name}"`, await usersOf(network, world));
    },
    async dependants(network, world) {
      const subnets = await subnetsOf(network, world);
      return subnets.filter((subnet) => subnet.metadata.owner?.uid === network.metadata.uid);
    },
    async removal(network) {
      const { uid, name } = network.metadata;
      if (await addresses.inUse(uid)) {
        throw new StrataError(
          "Conflict",
          `network "${name}" cannot go yet: instances still hold addresses of it; try again later`,
        );
      }
      const { cidr, ipv6Cidr } = network.status;
      return [
        ...(await ranges.release({ uid }, cidr, ipv6Cidr)),
        { delete: subnetGuardKey(uid) },
        { delete: peeringGuardKey(uid) },
      ];
    },
  };
}

type NetworkAdmission = Admission<NetworkStatus> & {
  status: NetworkStatus;
  dependants: Subnet[];
  writes: Write[];
};

/** Also for the network that comes with a project. @throws Conflict, CapacityExceeded. */
export async function admitNetwork(
  ranges: Ranges,
  network: Network,
  world: World,
  action: string,
): Promise<NetworkAdmission> {
  const { name, project = "", uid } = network.metadata;
  const { spec } = network;
  const hostRoute = spec.hostRoute ?? spec.cidr === undefined;
  const ipv6Cidr = spec.ipv6Cidr ?? randomLocalRange(world);
  const owner = { project, network: name, uid };
  const claim =
    hostRoute || spec.cidr === undefined
      ? await ranges.claim({ cidr: spec.cidr, ...(hostRoute ? { ipv6Cidr } : {}) }, owner)
      : { cidr: spec.cidr, writes: [] };
  const status = {
    ...network.status,
    cidr: claim.cidr,
    ipv6Cidr,
    hostRoute,
    domain: name === defaultNetworkName ? `${project}.internal` : `${name}.${project}.internal`,
  };
  const admitted = { ...network, status };
  const dependants = spec.subnets === "auto" ? [await autoSubnet(admitted, world, action)] : [];
  return { status, dependants, writes: claim.writes };
}

/** A /48 with 40 random bits of its own (RFC 4193, 3.1). */
export function randomLocalRange(world: World): string {
  const id = Buffer.from(world.random.bytes(5)).toString("hex");
  const base = BigInt(`0xfd${id}`) << 80n;
  return formatRange({ family: 6, base, prefixLength: 48 });
}

/** The network's one subnet, with the whole range and the network's name. */
export async function autoSubnet(network: Network, world: World, action: string): Promise<Subnet> {
  const { name, project = "", uid, createdAt } = network.metadata;
  const { cidr = "", ipv6Cidr = "" } = network.status;
  const other = await world.find(subnetKind, { project, name });
  if (other) {
    throw conflict(action, {
      path: "metadata.name",
      message: `is "${name}", the name of a subnet of network "${other.spec.network}"; this network's own subnet would get it`,
      allowed: "another name, or spec.subnets: custom",
    });
  }
  return {
    kind: subnetKind.name,
    metadata: {
      name,
      project,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt,
      finalizers: [],
      owner: { kind: network.kind, name, uid },
    },
    spec: { network: name, cidr },
    status: subnetStatus(cidr, firstOf(ipv6Cidr), 0),
  };
}

/** The first /64. */
function firstOf(ipv6Cidr: string): string {
  const range = parseRange(ipv6Cidr)?.range;
  if (!range) throw new StrataError("Internal", `the IPv6 range ${ipv6Cidr} of a network is malformed`);
  return `${formatIp({ family: 6, value: range.base })}/64`;
}

/** What keeps the network, a few of them. */
async function usersOf(network: Network, world: World): Promise<string[]> {
  const { name, project } = network.metadata;
  const users: string[] = [];
  const add = async <S, T>(
    kind: Parameters<typeof world.scan<S, T>>[0],
    word: string,
    uses: (spec: S) => boolean,
  ) => {
    for await (const { metadata, spec } of world.scan(kind, project)) {
      if (users.length > usersInMessage) return;
      if (uses(spec) && metadata.owner?.uid !== network.metadata.uid)
        users.push(`${word} "${metadata.name}"`);
    }
  };
  await add(instanceKind, "instance", (spec) => spec.network === name);
  await add(groupKind, "group", (spec) => spec.template.network === name);
  await add(networkInterfaceKind, "network interface", (spec) => spec.network === name);
  await add(subnetKind, "subnet", (spec) => spec.network === name);
  await add(routeTableKind, "route table", (spec) => spec.network === name);
  await add(peeringKind, "peering", ({ network: own, peerNetwork, peerProject = project }) => {
    return own === name || (peerNetwork === name && peerProject === project);
  });
  return users;
}
