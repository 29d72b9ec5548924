import { formatIp, parseRange } from "../core/ip-range.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { toStored } from "../kinds/stored.ts";
import { subnetKind } from "../kinds/subnet.ts";
import { storeLimits, type Write } from "../store/store.ts";
import { interfaceId, takenAddress } from "./addresses.ts";
import type { World } from "./hooks.ts";
import { autoSubnet, randomLocalRange } from "./networks.ts";

/**
 * Takes over what was stored before networks had subnets and IPv6, so that guests go on with the addresses they have.
 * Each network, then each instance, is one commit; what is done already is left alone, so that a stop in between loses
 * nothing. To be called before anything else looks at networks.
 */
export async function upgradeNetworks(world: World): Promise<void> {
  for await (const network of world.scan(networkKind, undefined)) {
    if (network.status.ipv6Cidr === undefined) await upgradeNetwork(network, world);
  }
  for await (const instance of world.scan(instanceKind, undefined)) {
    if (instance.status.nic && (instance.status.nic.subnet as string | undefined) === undefined) {
      await upgradeInstance(instance, world);
    }
  }
  await forgetOldKeys(world);
}

/** Where taken addresses were kept; now a kind's resources are there. */
const oldPrefix = "/addresses/";

async function upgradeNetwork(network: Network, world: World): Promise<void> {
  const { gateway: _moved, ...status } = network.status as Network["status"] & { gateway?: string };
  const upgraded: Network = {
    ...network,
    // Not parsed: ranges that are no longer allowed go on as well.
    spec: { ...networkKind.spec.parse({}), ...network.spec },
    // All of them had a route on the host, and ranges that no other has.
    status: { ...status, ipv6Cidr: randomLocalRange(world), hostRoute: true, hostAddresses: {} },
  };
  const writes = [replace(networkKind, upgraded)];
  if (network.metadata.deletedAt === undefined) {
    const subnet = await autoSubnet(upgraded, world, `take over network "${network.metadata.name}"`);
    const put = resourceKey(subnetKind, subnet.metadata as Ref);
    writes.push({ put, value: toStored(subnet), ifRevision: 0 });
  }
  await world.store.commit(writes);
}

async function upgradeInstance(instance: Instance, world: World): Promise<void> {
  const { name, project = "", uid } = instance.metadata;
  const { nic } = instance.status;
  const network = nic && (await world.find(networkKind, { project, name: nic.network }));
  if (!nic || !network) return;
  const networkUid = network.metadata.uid;
  // The first /64 is that of the network's one subnet.
  const base = parseRange(network.status.ipv6Cidr ?? "")?.range.base ?? 0n;
  const ipv6Address = formatIp({ family: 6, value: base + interfaceId(nic.macAddress) });
  const holder = { kind: instance.kind, project, name, uid };
  const upgraded: Instance = {
    ...instance,
    spec: instanceKind.spec.parse(instance.spec),
    status: { ...instance.status, nic: { ...nic, subnet: nic.network, ipv6Address } },
  };
  await world.store.commit([
    replace(instanceKind, upgraded),
    ...[nic.ipAddress, ipv6Address].map((address) => takenAddress(networkUid, address, holder)),
  ]);
}

async function forgetOldKeys(world: World): Promise<void> {
  let after: string | undefined;
  do {
    const page = await world.store.list(oldPrefix, {
      limit: storeLimits.writesPerCommit,
      ...(after === undefined ? {} : { after }),
    });
    const old = page.entries.filter(({ value }) => (value as { kind?: string }).kind === undefined);
    if (old.length > 0) await world.store.commit(old.map(({ key }) => ({ delete: key })));
    after = page.next;
  } while (after !== undefined);
}

function replace(kind: Pick<Kind, "plural" | "scope">, resource: Resource): Write {
  const { metadata } = resource;
  return {
    put: resourceKey(kind, metadata as Ref),
    value: toStored(resource),
    ifRevision: metadata.revision,
  };
}
