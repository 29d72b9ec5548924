import type {
  AddressPolicy,
  CardPolicy,
  GroupPolicy,
  NetworkPolicy,
  PublishedPortPolicy,
  RulePolicy,
} from "../../host/networks/networks.ts";
import type { Address } from "../../kinds/address.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import type { PublishedPort } from "../../kinds/published-port.ts";
import { parsePorts, type SecurityGroup, type SecurityRule } from "../../kinds/security-group.ts";

/** The resources that make a network's policy on this host; all of one project. */
export interface PolicySources {
  /** Instances whose own card is in the network. */
  instances: readonly Instance[];
  /** Further cards in the network, with the instance that each is plugged into. */
  interfaces: readonly PluggedInterface[];
  /** By name. */
  group(name: string): SecurityGroup | undefined;
  /** Of the instances above. */
  publishedPorts: readonly { port: PublishedPort; instance: Instance }[];
  addresses: readonly { address: Address; instance: Instance }[];
}

export interface PluggedInterface {
  card: NetworkInterface;
  instance: Instance;
}

export interface PolicyResult {
  policy: NetworkPolicy;
  /** Names of all groups that it was made from, those that do not exist included. */
  groups: ReadonlySet<string>;
}

/** What is wanted of a network on this host. The same for the same resources in any order. */
export function networkPolicy(sources: PolicySources): PolicyResult {
  const { named, groups } = groupPolicies(sources);
  const uidsOf = (names: readonly string[]) =>
    [...new Set(names)].flatMap((name) => sources.group(name)?.metadata.uid ?? []);
  return {
    policy: {
      cards: cardPolicies(sources, uidsOf),
      groups,
      publishedPorts: sources.publishedPorts
        .flatMap(portPolicy)
        .sort(by((one) => `${one.protocol} ${one.port}`)),
      addresses: sources.addresses.flatMap(addressPolicy).sort(by((one) => one.address)),
    },
    groups: named,
  };
}

/** Name of the bridge port of an instance's own card. */
export function instancePort(uid: string): string {
  return `g-${uid.slice(0, 12)}`;
}

/** Name of the bridge port of a further card. */
export function interfacePort(uid: string): string {
  return `n-${uid.slice(0, 12)}`;
}

/** As it stands in a policy; empty while the port leads nowhere. */
export function portPolicy(of: { port: PublishedPort; instance: Instance }): PublishedPortPolicy[] {
  const { spec } = of.port;
  const ipAddress = of.instance.status.nic?.ipAddress;
  if (ipAddress === undefined) return [];
  const { protocol, port, targetPort = port } = spec;
  return [{ protocol, port, ipAddress, targetPort }];
}

/** As it stands in a policy; empty while the address leads nowhere. */
export function addressPolicy(of: { address: Address; instance: Instance }): AddressPolicy[] {
  const address = of.address.status.ipAddress;
  const ipAddress = of.instance.status.nic?.ipAddress;
  return address === undefined || ipAddress === undefined ? [] : [{ address, ipAddress }];
}

/** A published port or address, and where it leads, as texts to compare. */
export interface Publication {
  name: string;
  leadsTo: string;
}

export function publicationOfPort(port: PublishedPortPolicy): Publication {
  return { name: `${port.protocol} ${port.port}`, leadsTo: `${port.ipAddress} ${port.targetPort}` };
}

export function publicationOfAddress({ address, ipAddress }: AddressPolicy): Publication {
  return { name: address, leadsTo: ipAddress };
}

type UidsOf = (names: readonly string[]) => string[];

function cardPolicies({ instances, interfaces }: PolicySources, uidsOf: UidsOf): CardPolicy[] {
  const cards = [
    ...instances.flatMap((instance) => {
      const card = ownCard(instance, uidsOf);
      return card ? [{ card, createdAt: instance.metadata.createdAt }] : [];
    }),
    ...interfaces.flatMap((plugged) => {
      const card = furtherCard(plugged, uidsOf);
      return card ? [{ card, createdAt: plugged.card.metadata.createdAt }] : [];
    }),
  ];
  return withoutSharedAddresses(cards).sort(by((card) => card.uid));
}

function ownCard({ metadata, spec, status }: Instance, uidsOf: UidsOf): CardPolicy | undefined {
  const { nic } = status;
  if (!nic) return undefined;
  return {
    uid: metadata.uid,
    subnet: nic.subnet,
    port: instancePort(metadata.uid),
    macAddress: nic.macAddress,
    ipAddress: nic.ipAddress,
    ...(nic.ipv6Address === undefined ? {} : { ipv6Address: nic.ipv6Address }),
    hostname: metadata.name,
    groups: uidsOf(spec.securityGroups),
    metadata: spec.metadata.enabled,
  };
}

function furtherCard({ card, instance }: PluggedInterface, uidsOf: UidsOf): CardPolicy | undefined {
  const { uid } = card.metadata;
  const { subnet, macAddress, ipAddress, ipv6Address } = card.status;
  if (subnet === undefined || macAddress === undefined || ipAddress === undefined) return undefined;
  return {
    uid,
    subnet,
    port: interfacePort(uid),
    macAddress,
    ipAddress,
    ...(ipv6Address === undefined ? {} : { ipv6Address }),
    groups: uidsOf(card.spec.securityGroups),
    metadata: instance.spec.metadata.enabled,
  };
}

/**
 * An address has one holder at a time, but two kinds are followed by two feeds: one may tell of the next holder before
 * the other tells that the last one is gone.
 */
function withoutSharedAddresses(cards: { card: CardPolicy; createdAt: string }[]): CardPolicy[] {
  const holders = new Map<string, CardPolicy>();
  const kept = new Set<CardPolicy>();
  const ages = by<{ card: CardPolicy; createdAt: string }>((one) => `${one.createdAt} ${one.card.uid}`);
  for (const { card } of cards.sort((a, b) => ages(b, a))) {
    const addresses = [card.ipAddress, card.ipv6Address, card.macAddress].filter((one) => one !== undefined);
    if (addresses.some((address) => holders.has(address))) continue;
    for (const address of addresses) holders.set(address, card);
    kept.add(card);
  }
  return [...kept];
}

/**
 * Groups of cards with their rules. A group that only a rule names has no members here, so its own rules do not
 * matter; it is there so that what a rule names exists.
 */
function groupPolicies(sources: PolicySources): { named: Set<string>; groups: GroupPolicy[] } {
  const ofCards = new Set<string>();
  for (const { spec } of sources.instances) for (const name of spec.securityGroups) ofCards.add(name);
  for (const { card } of sources.interfaces) for (const name of card.spec.securityGroups) ofCards.add(name);
  const named = new Set(ofCards);
  const groups = new Map<string, GroupPolicy>();
  for (const name of ofCards) {
    const group = sources.group(name);
    if (!group) continue;
    groups.set(group.metadata.uid, rulesOf(group, sources));
    for (const { group: other } of [...group.spec.ingress, ...group.spec.egress]) {
      if (other === undefined || named.has(other)) continue;
      named.add(other);
      const uid = sources.group(other)?.metadata.uid;
      if (uid !== undefined) groups.set(uid, { uid, ingress: [], egress: [] });
    }
  }
  return { named, groups: [...groups.values()].sort(by((group) => group.uid)) };
}

function rulesOf({ metadata, spec }: SecurityGroup, sources: PolicySources): GroupPolicy {
  const rules = (list: readonly SecurityRule[]) => list.flatMap((rule) => rulePolicy(rule, sources));
  return { uid: metadata.uid, ingress: rules(spec.ingress), egress: rules(spec.egress) };
}

/** None for a rule that names a group which is gone: it fits nobody. */
function rulePolicy(rule: SecurityRule, sources: PolicySources): RulePolicy[] {
  const ports = rule.ports === undefined ? undefined : parsePorts(rule.ports);
  const shape = { protocol: rule.protocol, ...(ports ? { ports } : {}) };
  if (rule.cidr !== undefined) return [{ ...shape, peer: { cidr: rule.cidr } }];
  const group = rule.group === undefined ? undefined : sources.group(rule.group)?.metadata.uid;
  return group === undefined ? [] : [{ ...shape, peer: { group } }];
}

function by<T>(textOf: (item: T) => string): (a: T, b: T) => number {
  return (a, b) => (textOf(a) < textOf(b) ? -1 : 1);
}
