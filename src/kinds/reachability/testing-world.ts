/** Worlds in few words, for tests: resources as the daemon would have them. */
import { newUid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import { seededRandom } from "../../core/random.ts";
import { addressKind } from "../address.ts";
import { instanceKind } from "../instance.ts";
import type { Kind, Resource } from "../kind.ts";
import { networkKind } from "../network.ts";
import { networkInterfaceKind } from "../network-interface.ts";
import { peeringKind } from "../peering.ts";
import { publishedPortKind } from "../published-port.ts";
import { routeTableKind } from "../route-table.ts";
import { securityGroupKind } from "../security-group.ts";
import { subnetKind } from "../subnet.ts";
import type { NetworkWorld } from "./world.ts";

const kindsOfWorld = {
  networks: networkKind,
  subnets: subnetKind,
  routeTables: routeTableKind,
  peerings: peeringKind,
  securityGroups: securityGroupKind,
  instances: instanceKind,
  networkInterfaces: networkInterfaceKind,
  addresses: addressKind,
  publishedPorts: publishedPortKind,
};
type Section = keyof NetworkWorld;
/** By name, `PROJECT/NAME` for another project than `campus`: the spec, and under `status` what the daemon knows. */
export type WorldText = Partial<Record<Section, Record<string, JsonObject & { status?: JsonObject }>>>;

const random = seededRandom(11);

export function worldOf(text: WorldText): NetworkWorld {
  const sections = Object.entries(kindsOfWorld).map(([section, kind]) => {
    const entries = Object.entries(text[section as Section] ?? {});
    return [section, entries.map(([name, entry]) => resourceOf(kind as unknown as Kind, name, entry))];
  });
  return Object.fromEntries(sections) as NetworkWorld;
}

function resourceOf(kind: Kind, path: string, entry: JsonObject & { status?: JsonObject }): Resource {
  const [first = "", second] = path.split("/");
  const { status = {}, ...spec } = entry;
  return {
    kind: kind.name,
    metadata: {
      name: second ?? first,
      project: second === undefined ? "campus" : first,
      uid: newUid(random),
      revision: 1,
      generation: 1,
      labels: {},
      createdAt: "2030-01-01T00:00:00.000Z",
      finalizers: [],
    },
    spec: kind.spec.parse(spec),
    status: { ...(kind.initialStatus() as object), ...status },
  };
}

/** A running container with its own card. */
export function guest(
  network: string,
  subnet: string,
  ipAddress: string,
  securityGroups: string[],
  more: { ipv6Address?: string; state?: string; spec?: JsonObject } = {},
): JsonObject {
  const { ipv6Address, state = "running", spec = {} } = more;
  const macAddress = "02:00:00:00:00:01";
  const nic = { network, subnet, macAddress, ipAddress, ...(ipv6Address ? { ipv6Address } : {}) };
  return {
    type: "container",
    image: "base",
    network,
    subnet,
    securityGroups,
    ...spec,
    status: { state, host: "alpha", nic, observedGeneration: 1 },
  };
}
