import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import type { Network } from "../../kinds/network.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import { domainOf } from "../networks/request.ts";
import { type AgentViews, siblingKey } from "../views.ts";
import type { CardFacts, InstanceFacts } from "./instance-facts.ts";

export type FactViews = Pick<
  AgentViews,
  | "addresses"
  | "addressesByInstance"
  | "images"
  | "instances"
  | "instancesByNetwork"
  | "interfaces"
  | "interfacesByNetwork"
  | "interfacesByPlug"
  | "keyPairs"
  | "networks"
  | "securityGroups"
  | "subnets"
>;

/** The instance of this host that has the address in the network, by any of its cards. */
export function findInstance(
  views: FactViews,
  networkUid: string,
  sourceAddress: string,
): InstanceFacts | undefined {
  const network = views.networks.byUid(networkUid);
  if (!network) return undefined;
  const instance = ownerOf(views, views.networks.keyOf(network), sourceAddress);
  return instance && instanceFacts(views, instance);
}

function ownerOf(views: FactViews, networkKey: string, sourceAddress: string): Instance | undefined {
  for (const key of views.instancesByNetwork.keysOf(networkKey)) {
    const instance = views.instances.get(key);
    if (instance?.status.nic?.ipAddress === sourceAddress) return instance;
  }
  for (const key of views.interfacesByNetwork.keysOf(networkKey)) {
    const card = views.interfaces.get(key);
    if (card?.status.ipAddress !== sourceAddress || card.status.instance === undefined) continue;
    return views.instances.get(siblingKey(instanceKind, card, card.status.instance));
  }
  return undefined;
}

function instanceFacts(views: FactViews, instance: Instance): InstanceFacts {
  const { metadata, spec } = instance;
  const { name, project = "" } = metadata;
  const network = views.networks.find({ project, name: spec.network });
  const image = views.images.find({ project, name: spec.image });
  return {
    uid: metadata.uid,
    project,
    name,
    hostname: network ? `${name}.${domainOf(network)}` : name,
    type: spec.type,
    cpus: spec.cpus,
    memoryMib: spec.memoryMib,
    ...(image ? { imageUid: image.metadata.uid } : {}),
    createdAt: metadata.createdAt,
    access: spec.metadata,
    ...(spec.userData === undefined ? {} : { userData: spec.userData }),
    publicKeys: spec.keyPairs.flatMap((pair) => {
      const found = views.keyPairs.find({ project, name: pair });
      return found ? [{ name: pair, text: found.spec.publicKey.trim() }] : [];
    }),
    cards: [...ownCard(views, instance, network), ...furtherCards(views, instance)],
  };
}

function ownCard(views: FactViews, instance: Instance, network: Network | undefined): CardFacts[] {
  const { metadata, spec, status } = instance;
  const { project = "" } = metadata;
  if (!status.nic) return [];
  const { macAddress, ipAddress, ipv6Address, subnet } = status.nic;
  const publicAddress = boundAddress(views, views.instances.keyOf(instance));
  return [
    {
      uid: metadata.uid,
      macAddress,
      ipAddress,
      ...(ipv6Address === undefined ? {} : { ipv6Address }),
      ...(publicAddress === undefined ? {} : { publicAddress }),
      securityGroups: groupFacts(views, project, spec.securityGroups),
      ...placeFacts(views, { project, name: subnet }, network),
    },
  ];
}

function furtherCards(views: FactViews, instance: Instance): CardFacts[] {
  const keys = views.interfacesByPlug.keysOf(views.instances.keyOf(instance));
  const cards = [...keys].flatMap((key) => views.interfaces.get(key) ?? []);
  return cards.sort(byCreation).flatMap(({ metadata, spec, status }) => {
    const { project = "" } = metadata;
    const { macAddress, ipAddress, ipv6Address, subnet } = status;
    if (macAddress === undefined || ipAddress === undefined || subnet === undefined) return [];
    const network = views.networks.find({ project, name: spec.network });
    return [
      {
        uid: metadata.uid,
        ...(status.device === undefined ? {} : { device: status.device }),
        macAddress,
        ipAddress,
        ...(ipv6Address === undefined ? {} : { ipv6Address }),
        securityGroups: groupFacts(views, project, spec.securityGroups),
        ...placeFacts(views, { project, name: subnet }, network),
      },
    ];
  });
}

function byCreation(a: NetworkInterface, b: NetworkInterface): number {
  const orderOf = ({ metadata }: NetworkInterface) => `${metadata.createdAt} ${metadata.uid}`;
  return orderOf(a) < orderOf(b) ? -1 : 1;
}

function boundAddress(views: FactViews, instanceKey: string): string | undefined {
  for (const key of views.addressesByInstance.keysOf(instanceKey)) {
    const address = views.addresses.get(key);
    if (address?.status.state === "bound") return address.status.ipAddress;
  }
  return undefined;
}

function groupFacts(views: FactViews, project: string, names: readonly string[]) {
  return names.flatMap((name) => {
    const group = views.securityGroups.find({ project, name });
    return group ? [{ name, uid: group.metadata.uid }] : [];
  });
}

function placeFacts(
  views: FactViews,
  subnetRef: Ref,
  network: Network | undefined,
): Pick<CardFacts, "subnet" | "network"> {
  const subnet = views.subnets.find(subnetRef);
  return {
    ...(subnet && {
      subnet: { uid: subnet.metadata.uid, cidr: subnet.spec.cidr, ipv6Cidr: subnet.status.ipv6Cidr },
    }),
    ...(network && {
      network: { uid: network.metadata.uid, cidr: network.status.cidr, ipv6Cidr: network.status.ipv6Cidr },
    }),
  };
}
