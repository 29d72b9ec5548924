/**
 * Everything about one network that follows from its request alone: names on the host, addresses, hardware addresses,
 * paths. Whatever was made is found again by these names, so no record is needed that could be lost or wrong.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { encodeBase32, isUid } from "../../core/ids.ts";
import {
  contains,
  formatIp,
  formatRange,
  type IpFamily,
  type IpRange,
  parseIp,
  parseRange,
  widthOf,
} from "../../core/ip-range.ts";
import type { HostConfig } from "../host-config.ts";
import type { NetworkRequest, PeeringRequest, RouteRequest, SubnetRequest } from "./networks.ts";

/** Where the kernel's named network namespaces are, by the convention of iproute2. */
export const netnsDirectory = "/run/netns";
/** Inside every network's namespace. */
export const innerUplinkName = "uplink";
/** On every bridge: where router advertisements come from, and where guests send to. */
export const gatewayLinkLocal = "fe80::1";

/** Names and paths that follow from a network's uid. */
export interface NetworkNames {
  uid: string;
  netns: string;
  netnsPath: string;
  /** The host's end of the uplink. */
  uplink: string;
  /** Shown by `ip link`, for people; also tells other daemons that this uplink needs forwarding. */
  alias: string;
  /** Generated files, reservations and pid files. */
  directory: string;
  dnsGroup: string;
  dhcpGroup: string;
}

export interface NetworkPlan extends NetworkNames {
  range: IpRange;
  cidr: string;
  /** Absent where the host has no IPv6. */
  ipv6Cidr?: string;
  domain: string;
  mtu: number;
  hostRoute: boolean;
  internet: boolean;
  /** The host has a way to the outside by IPv6. */
  outside6: boolean;
  subnets: SubnetPlan[];
  peerings: PeeringPlan[];
  uplinkMac: string;
  innerUplinkMac: string;
}

/** A subnet's range of one family. */
export interface SubnetRange {
  cidr: string;
  range: IpRange;
  gateway: string;
}

export interface SubnetPlan {
  name: string;
  index: number;
  bridge: string;
  macAddress: string;
  v4: SubnetRange;
  v6?: SubnetRange;
  /** Left out: those of the network. */
  routes?: RoutePlan[];
}

export interface RoutePlan {
  family: IpFamily;
  /** In canonical form, so that it equals what the kernel lists. */
  destination: string;
  target: RouteRequest["target"];
}

export interface PeeringPlan {
  uid: string;
  network: string;
  ranges: { family: IpFamily; cidr: string }[];
  /** The interface, of the same name in both networks' namespaces. */
  link: string;
  macAddress: string;
  peerMacAddress: string;
}

export const uplinkAliasPrefix = "strata:";

/** Tables and priorities of rules are numbered by it. */
const maxSubnetIndex = 9_999;
const namespacePattern = /^[a-z][a-z0-9-]{0,15}$/;
const domainPattern =
  /^(?!.{254})[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;

/**
 * The beginning of the names of all uplinks of this daemon: five characters that differ between daemons on one host,
 * so that `PREFIX*` in a firewall rule means exactly ours.
 */
export function uplinkPrefix(namespace: string): string {
  return `s${nameHash(namespace, 4)}`;
}

/** The daemon's own table on the host. The ending keeps it from being a word of nft's language. */
export function hostTable(namespace: string): string {
  return `${namespace}-networks`;
}

/** @throws Invalid when the namespace cannot be part of names on the host. */
export function requireNamespace(namespace: string): void {
  if (namespacePattern.test(namespace)) return;
  throw new StrataError(
    "Invalid",
    `"${namespace}" cannot name a daemon: at most 16 of a-z, 0-9 and '-', starting with a letter`,
  );
}

/** @throws Invalid when `uid` is none. */
export function networkNames(config: Pick<HostConfig, "namespace" | "runDir">, uid: string): NetworkNames {
  if (!isUid(uid)) throw new StrataError("Invalid", `"${uid}" is not the uid of a network`);
  const { namespace } = config;
  return {
    uid,
    netns: `${namespace}-${uid}`,
    netnsPath: join(netnsDirectory, `${namespace}-${uid}`),
    uplink: `${uplinkPrefix(namespace)}${nameHash(uid, 10)}`,
    alias: `${uplinkAliasPrefix} ${namespace}/${uid}`,
    directory: join(config.runDir, "networks", uid),
    dnsGroup: `${namespace}/net-${uid}-dns`,
    dhcpGroup: `${namespace}/net-${uid}-dhcp`,
  };
}

/** The uid in a namespace's file name, or undefined when it is not one of this daemon's networks. */
export function uidOfNetns(namespace: string, file: string): string | undefined {
  const uid = file.startsWith(`${namespace}-`) ? file.slice(namespace.length + 1) : "";
  return isUid(uid) ? uid : undefined;
}

/** What a plan takes from the host. */
export interface HostFacts {
  /** What fits through the host's way to the outside. */
  mtu: number;
  /** The kernel has IPv6. */
  ipv6: boolean;
  outside6: boolean;
}

/** @throws Invalid for values that the control plane never sends: they end up in commands and configuration files. */
export function planNetwork(
  config: Pick<HostConfig, "namespace" | "runDir">,
  request: NetworkRequest,
  facts: HostFacts,
): NetworkPlan {
  const names = networkNames(config, request.uid);
  const fail = (what: string, value: unknown, rule: string) => invalid(request.uid, what, value, rule);
  if (!domainPattern.test(request.domain)) {
    throw fail("domain", request.domain, "a DNS name such as demo.internal");
  }
  const mtu = request.mtu ?? facts.mtu;
  if (!Number.isInteger(mtu) || mtu < 1280 || mtu > 65_535) throw fail("MTU", mtu, "1,280 to 65,535 bytes");
  const range = requireRange(request.uid, "range", request.cidr, 4);
  const ipv6Cidr = facts.ipv6 ? request.ipv6Cidr : undefined;
  const range6 = ipv6Cidr === undefined ? undefined : requireRange(request.uid, "range", ipv6Cidr, 6);
  const indexes = request.subnets.map(({ index }) => index);
  if (new Set(indexes).size < indexes.length)
    throw fail("subnets", indexes.join(", "), "of different numbers");
  return {
    ...names,
    range,
    cidr: formatRange(range),
    ...(range6 && { ipv6Cidr: formatRange(range6) }),
    domain: request.domain,
    mtu,
    hostRoute: request.hostRoute,
    internet: request.internet,
    outside6: facts.ipv6 && facts.outside6,
    subnets: request.subnets.map((subnet) => planSubnet(names, subnet, range, range6)),
    peerings: request.peerings.map((peering) => planPeering(names, peering, facts)),
    uplinkMac: hardwareAddress(`${names.netns} uplink`),
    innerUplinkMac: hardwareAddress(`${names.netns} inner uplink`),
  };
}

function planSubnet(
  names: NetworkNames,
  request: SubnetRequest,
  range: IpRange,
  range6: IpRange | undefined,
): SubnetPlan {
  const { name, index, ipv6Cidr, ipv6Gateway } = request;
  if (!Number.isInteger(index) || index < 0 || index > maxSubnetIndex) {
    throw invalid(names.uid, "subnet number", index, `0 to ${maxSubnetIndex}`);
  }
  const planRange = (cidr: string, gateway: string, within: IpRange): SubnetRange => {
    const own = requireRange(names.uid, "subnet", cidr, within.family);
    if (!contains(within, own)) throw invalid(names.uid, "subnet", cidr, `inside ${formatRange(within)}`);
    const address = parseIp(gateway);
    if (!address || !contains(own, address) || address.value === own.base) {
      throw invalid(names.uid, "gateway", gateway, `an address inside ${cidr}`);
    }
    return { cidr: formatRange(own), range: own, gateway: formatIp(address) };
  };
  const v6 = range6 && ipv6Cidr !== undefined && ipv6Gateway !== undefined;
  return {
    name,
    index,
    bridge: `br${index}`,
    macAddress: hardwareAddress(`${names.netns} bridge ${index}`),
    v4: planRange(request.cidr, request.gateway, range),
    ...(v6 && { v6: planRange(ipv6Cidr, ipv6Gateway, range6) }),
    ...(request.routes && { routes: request.routes.map((route) => planRoute(names.uid, route)) }),
  };
}

function planRoute(uid: string, { destination, target }: RouteRequest): RoutePlan {
  const { family, cidr } = anyRange(uid, "route", destination);
  return { family, destination: cidr, target };
}

function planPeering(names: NetworkNames, peering: PeeringRequest, facts: HostFacts): PeeringPlan {
  for (const uid of [peering.uid, peering.network]) {
    if (!isUid(uid)) throw invalid(names.uid, "peering", uid, "named by uids");
  }
  if (peering.network === names.uid) throw invalid(names.uid, "peering", peering.uid, "with another network");
  const ranges = peering.ranges.map((text) => anyRange(names.uid, "peering's range", text));
  return {
    uid: peering.uid,
    network: peering.network,
    ranges: ranges.filter(({ family }) => family === 4 || facts.ipv6),
    link: peeringLink(peering.uid),
    macAddress: hardwareAddress(`peering ${peering.uid} ${names.uid}`),
    peerMacAddress: hardwareAddress(`peering ${peering.uid} ${peering.network}`),
  };
}

/** As long as a name may be. */
export function peeringLink(uid: string): string {
  return `p${uid.slice(0, 14)}`;
}

/** Links by which networks are joined, also those of peerings that nobody wants any more. */
export function isPeeringLink(name: string): boolean {
  return /^p[0-9a-hjkmnp-tv-z]{14}$/.test(name);
}

export function isBridge(name: string): boolean {
  return /^br\d{1,5}$/.test(name);
}

export function netmaskOf({ prefixLength }: IpRange): string {
  return formatIp({ family: 4, value: (1n << 32n) - (1n << BigInt(32 - prefixLength)) });
}

function requireRange(uid: string, what: string, text: string, family: IpFamily): IpRange {
  const parsed = parseRange(text);
  const narrowest = widthOf(family) - 2;
  if (
    parsed?.exact &&
    parsed.range.family === family &&
    parsed.range.prefixLength >= 8 &&
    parsed.range.prefixLength <= narrowest
  ) {
    return parsed.range;
  }
  const example = family === 4 ? "10.20.0.0/24" : "fd12:3456:789a:1::/64";
  throw invalid(uid, what, text, `an IPv${family} range such as ${example}`);
}

function anyRange(uid: string, what: string, text: string): { family: IpFamily; cidr: string } {
  const parsed = parseRange(text);
  if (!parsed?.exact) throw invalid(uid, what, text, "a range such as 10.20.0.0/24 or fd12:3456:789a::/48");
  return { family: parsed.range.family, cidr: formatRange(parsed.range) };
}

function nameHash(text: string, length: number): string {
  return encodeBase32(createHash("sha256").update(text).digest()).slice(0, length);
}

/**
 * Locally administered, and always the same for the same role of the same network: neighbours' caches stay right when an interface is
 * made again, and udev leaves an address alone that was given on creation.
 */
function hardwareAddress(role: string): string {
  const hash = createHash("sha256").update(role).digest();
  return ["02", ...[...hash.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

function invalid(uid: string, what: string, value: unknown, rule: string): StrataError {
  return new StrataError("Invalid", `network ${uid} cannot have the ${what} "${value}": it must be ${rule}`);
}
