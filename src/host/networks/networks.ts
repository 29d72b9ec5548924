/**
 * Virtual networks on this host. Each is a network namespace of its own: a bridge a subnet with the gateways' addresses,
 * dnsmasq for DHCP, router advertisements and DNS, an nftables ruleset, and an uplink pair of interfaces to the host. Two
 * networks may use the same addresses. docs/rfd/0003-networks.md says why it is built this way.
 */

/**
 * Guests ask 169.254.169.254:80; the network leads them to this port of its `hostAddress`, where the agent listens. Their
 * source address stays theirs: by it they are told apart.
 */
export const metadataEndpoint = { address: "169.254.169.254", port: 80, hostPort: 8775 } as const;

/** A network's structure. Ranges, gateways and addresses are the control plane's decision; here they are carried out. */
export interface NetworkRequest {
  uid: string;
  /** All of the network's IPv4 range, and its IPv6 range; both only for what is local. */
  cidr: string;
  ipv6Cidr?: string;
  domain: string;
  /** In bytes. Default: that of the host's way to the outside. */
  mtu?: number;
  /** The host's own routing table leads to the range. */
  hostRoute: boolean;
  /** Subnets without a table of their own may leave for the outside. */
  internet: boolean;
  subnets: readonly SubnetRequest[];
  /** Active peerings. */
  peerings: readonly PeeringRequest[];
}

export interface SubnetRequest {
  name: string;
  /** Its bridge is `br` and this; never changes, never reused while the network lives. */
  index: number;
  cidr: string;
  gateway: string;
  ipv6Cidr?: string;
  ipv6Gateway?: string;
  /** Left out: the network's own routes (see NetworkRequest.internet; all peerings). */
  routes?: readonly RouteRequest[];
}

export interface RouteRequest {
  destination: string;
  /** `{ peering }`: by the peering of this uid. `none`: refused with an ICMP error. */
  target: "internet" | "none" | { peering: string };
}

export interface PeeringRequest {
  /** The same on both sides. */
  uid: string;
  /** Uid of the other network. Where it is not on this host (yet), the peering waits. */
  network: string;
  /** The other network's ranges. */
  ranges: readonly string[];
}

/** How guests join. */
export interface NetworkAttachment {
  /** Path of the network's namespace. */
  netns: string;
  mtu: number;
  /** Whoever on the host sends from this address reaches this network's guests, also where ranges overlap. */
  hostAddress: string;
  subnets: readonly SubnetAttachment[];
}

export interface SubnetAttachment {
  name: string;
  bridge: string;
  prefixLength: number;
  gateway: string;
  ipv6?: { prefixLength: number; gateway: string };
}

/** What is wanted of one network on this host besides its structure: always the whole of it. */
export interface NetworkPolicy {
  cards: readonly CardPolicy[];
  groups: readonly GroupPolicy[];
  publishedPorts: readonly PublishedPortPolicy[];
  addresses: readonly AddressPolicy[];
}

/** One guest's place: DHCP hands out exactly this, DNS answers HOSTNAME and HOSTNAME.DOMAIN with it. */
export interface CardPolicy {
  /** Of the instance for its own card, else of the network interface. */
  uid: string;
  subnet: string;
  /** The bridge port that the driver makes; need not exist yet. */
  port: string;
  macAddress: string;
  ipAddress: string;
  ipv6Address?: string;
  /** Absent: no name of its own (further cards of an instance). */
  hostname?: string;
  /** Uids of groups; without one nothing passes in either direction but what the host sends. */
  groups: readonly string[];
  /** May it ask the metadata service? */
  metadata: boolean;
}

export interface GroupPolicy {
  uid: string;
  ingress: readonly RulePolicy[];
  egress: readonly RulePolicy[];
}

export interface RulePolicy {
  protocol: "any" | "tcp" | "udp" | "icmp";
  /** Left out: all. */
  ports?: { first: number; last: number };
  /** A range of either family, or all cards that have a group. */
  peer: { cidr: string } | { group: string };
}

export interface PublishedPortPolicy {
  protocol: "tcp" | "udp";
  /** On all of the host's own addresses. */
  port: number;
  ipAddress: string;
  targetPort: number;
}

export interface AddressPolicy {
  /** The floating address. */
  address: string;
  /** The card's. */
  ipAddress: string;
}

export interface Networks {
  /** Makes or mends it: namespace, interfaces, rules, the DHCP and DNS process. Idempotent. @throws Conflict when the host already routes the range elsewhere. */
  ensure(request: NetworkRequest, signal: AbortSignal): Promise<NetworkAttachment>;
  /**
   * Carries out the difference between this and what is in force. A card is in force before its guest starts; nothing
   * that stays allowed is interrupted. Idempotent. @throws NotFound before the first `ensure`.
   */
  apply(network: string, policy: NetworkPolicy, signal: AbortSignal): Promise<void>;
  /** Takes all of it away; absent is success. With the last one go the host's rules, and its settings are put back. */
  remove(uid: string, signal: AbortSignal): Promise<void>;
  /** Uids of all networks of this name space, orphans included. */
  list(): Promise<string[]>;
  /** Hints that a network needs mending: its DHCP process died, its namespace is gone, somebody changed its rules. */
  events(signal: AbortSignal): AsyncIterable<{ uid: string }>;
}
