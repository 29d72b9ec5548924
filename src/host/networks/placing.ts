/** From a network's plan, and what is known of its place on this host, to what others are told about it. Pure. */
import type { SeenInside } from "./mending.ts";
import { innerUplinkName, type NetworkPlan } from "./network-plan.ts";
import { metadataEndpoint, type NetworkAttachment } from "./networks.ts";
import type { FirewallNetwork } from "./policy/firewall.ts";
import type { PlacedNetwork } from "./routing.ts";

/**
 * Uids of the peerings of `plan` that can be in force here. `other`: the plan of another network, when its namespace exists
 * and it was ensured by this process. A link that is there stays until the other network has been: after a restart of the
 * daemon the networks are ensured one after the other.
 */
export function joinedPeerings(
  plan: NetworkPlan,
  other: (uid: string) => NetworkPlan | undefined,
  inside: SeenInside | undefined,
): Set<string> {
  const joined = plan.peerings.filter(({ uid, network, link }) => {
    const peer = other(network);
    if (!peer) return inside?.links.has(link) ?? false;
    return peer.peerings.some((one) => one.uid === uid && one.network === plan.uid);
  });
  return new Set(joined.map(({ uid }) => uid));
}

export function attachmentOf(network: PlacedNetwork): NetworkAttachment {
  return {
    netns: network.netnsPath,
    mtu: network.mtu,
    hostAddress: network.pair.hostAddress,
    subnets: network.subnets.map(({ name, bridge, v4, v6 }) => ({
      name,
      bridge,
      prefixLength: v4.range.prefixLength,
      gateway: v4.gateway,
      ...(v6 && { ipv6: { prefixLength: v6.range.prefixLength, gateway: v6.gateway } }),
    })),
  };
}

export function firewallNetwork(network: PlacedNetwork): FirewallNetwork {
  const { pair } = network;
  return {
    uid: network.uid,
    netns: network.netnsPath,
    uplink: {
      inner: innerUplinkName,
      host: network.uplink,
      innerAddress: pair.innerAddress,
      hostAddress: pair.hostAddress,
      ...(network.ipv6Cidr !== undefined && {
        innerAddress6: pair.innerAddress6,
        hostAddress6: pair.hostAddress6,
      }),
    },
    ranges: [network.cidr, ...(network.ipv6Cidr === undefined ? [] : [network.ipv6Cidr])],
    subnets: network.subnets.map(({ bridge, v4, v6 }) => ({
      bridge,
      cidr: v4.cidr,
      gateway: v4.gateway,
      ...(v6 && { ipv6: { cidr: v6.cidr, gateway: v6.gateway } }),
    })),
    metadata: { port: metadataEndpoint.hostPort },
    peerings: network.peerings
      .filter(({ uid }) => network.joined.has(uid))
      .map(({ link, ranges }) => ({ name: link, ranges: ranges.map(({ cidr }) => cidr) })),
  };
}
