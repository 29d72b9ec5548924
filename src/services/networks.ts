import { StrataError } from "../core/errors.ts";
import { instanceKind } from "../kinds/instance.ts";
import { immutable, type ResourceOf } from "../kinds/kind.ts";
import type { NetworkStatus, networkKind } from "../kinds/network.ts";
import type { Write } from "../store/store.ts";
import type { Addresses } from "./addresses.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { formatAddress, parseCidr } from "./ipv4.ts";
import { invalid } from "./parse.ts";
import { cidrError, type Ranges } from "./ranges.ts";

type Network = ResourceOf<typeof networkKind>;

/** A network's range, gateway and domain are settled in the commit that creates it. */
export function networkHooks(
  ranges: Ranges,
  addresses: Addresses,
): KindHooks<Network["spec"], NetworkStatus> {
  return {
    admit: (network, _world, action) => admitNetwork(ranges, network, action),
    validateStatus: (next, previous) =>
      immutable(next, previous, ["cidr", "gateway", "domain"]).map((error) => ({
        ...error,
        path: error.path.replace(/^spec/, "status"),
      })),
    async checkDelete(network, world, mode) {
      if (mode.withProject) return;
      const users = await usersOf(network, world);
      if (users.length === 0) return;
      throw new StrataError(
        "Conflict",
        `cannot delete network "${network.metadata.name}": ${users.join(", ")} ${users.length === 1 ? "uses" : "use"} it; ` +
          "delete those first",
      );
    },
    async removal(network) {
      if (await addresses.inUse(network.metadata.uid)) {
        throw new StrataError(
          "Conflict",
          `network "${network.metadata.name}" cannot go yet: instances still hold addresses of it; try again later`,
        );
      }
      const { cidr } = network.status;
      return cidr === undefined ? [] : [ranges.release(cidr)];
    },
  };
}

/** Also for the network that comes with a project. @throws Invalid, Conflict, CapacityExceeded. */
export async function admitNetwork(
  ranges: Ranges,
  network: Network,
  action: string,
): Promise<Admission<NetworkStatus> & { status: NetworkStatus; writes: Write[] }> {
  const { name, project = "", uid } = network.metadata;
  const { cidr } = network.spec;
  const error = cidr === undefined ? undefined : cidrError(cidr);
  if (error) throw invalid(action, [error]);
  const claim = await ranges.claim(cidr, { project, network: name, uid });
  return {
    status: {
      ...network.status,
      cidr: claim.cidr,
      gateway: gatewayOf(claim.cidr),
      domain: `${project}.internal`,
    },
    writes: claim.writes,
  };
}

function gatewayOf(cidr: string): string {
  return formatAddress((parseCidr(cidr)?.range.first ?? 0) + 1);
}

/** Names of up to five instances in it. */
async function usersOf(network: Network, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const instance of world.scan(instanceKind, network.metadata.project)) {
    if (instance.spec.network !== network.metadata.name) continue;
    users.push(`instance "${instance.metadata.name}"`);
    if (users.length === 5) break;
  }
  return users;
}
