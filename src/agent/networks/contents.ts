/** What the views know of one network: the resources that its structure and its policy are made from. */
import type { NetworkRequest } from "../../host/networks/networks.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Network } from "../../kinds/network.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import type { Cache, Versioned } from "../../reconcile/cache.ts";
import { type AgentViews, networkKeyOf, peerKeyOf, siblingKey } from "../views.ts";
import type { PluggedInterface, PolicySources } from "./policy.ts";
import { networkRequest, type PeeringOfNetwork } from "./request.ts";

/** Those whose cards are taken away although the API still tells of them. */
export interface Departed {
  instance(uid: string): boolean;
  card(uid: string): boolean;
}

/** What the host is asked for; undefined while the network has no range. */
export function requestFor(views: AgentViews, network: Network): NetworkRequest | undefined {
  const key = views.networks.keyOf(network);
  return networkRequest({
    network,
    subnets: all(views.subnets, views.subnetsByNetwork.keysOf(key)),
    routeTables: all(views.routeTables, views.routeTablesByNetwork.keysOf(key)),
    peerings: peeringsOf(views, key),
  });
}

function peeringsOf(views: AgentViews, key: string): PeeringOfNetwork[] {
  const named = all(views.peerings, views.peeringsByNetwork.keysOf(key));
  const naming = all(views.peerings, views.peeringsByPeer.keysOf(key));
  return [
    ...named.map((peering) => ({ peering, other: views.networks.get(peerKeyOf(peering)) })),
    ...naming.map((peering) => ({ peering, other: views.networks.get(networkKeyOf(peering)) })),
  ];
}

/** The instance that a card is plugged into on this host, or has yet to leave here. */
export function instanceOfCard(views: AgentViews, card: NetworkInterface): Instance | undefined {
  const { instance } = card.status;
  return instance === undefined ? undefined : views.instances.get(siblingKey(instanceKind, card, instance));
}

/** Instances and cards of this host in the network. */
export function membersOf(
  views: AgentViews,
  key: string,
  departed: Departed,
): { instances: Instance[]; interfaces: PluggedInterface[] } {
  const instances = all(views.instances, views.instancesByNetwork.keysOf(key));
  const cards = all(views.interfaces, views.interfacesByNetwork.keysOf(key));
  return {
    instances: instances.filter(({ metadata }) => !departed.instance(metadata.uid)),
    interfaces: cards.flatMap((card) => {
      const instance = departed.card(card.metadata.uid) ? undefined : instanceOfCard(views, card);
      return instance && !departed.instance(instance.metadata.uid) ? [{ card, instance }] : [];
    }),
  };
}

export function policySources(views: AgentViews, network: Network, departed: Departed): PolicySources {
  const members = membersOf(views, views.networks.keyOf(network), departed);
  const ofInstance = (instance: Instance) => views.instances.keyOf(instance);
  return {
    ...members,
    group: (name) => views.securityGroups.get(siblingKey(securityGroupKind, network, name)),
    publishedPorts: members.instances.flatMap((instance) =>
      all(views.publishedPorts, views.publishedPortsByInstance.keysOf(ofInstance(instance)))
        .filter(({ metadata }) => metadata.deletedAt === undefined)
        .map((port) => ({ port, instance })),
    ),
    addresses: members.instances.flatMap((instance) =>
      all(views.addresses, views.addressesByInstance.keysOf(ofInstance(instance)))
        .filter(({ metadata }) => metadata.deletedAt === undefined)
        .map((address) => ({ address, instance })),
    ),
  };
}

function all<R extends Versioned>(cache: Cache<R>, keys: Iterable<string>): R[] {
  return [...keys].flatMap((key) => cache.get(key) ?? []);
}
