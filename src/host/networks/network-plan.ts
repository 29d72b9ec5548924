/**
 * Everything about one network that follows from its request alone: names on the host, addresses, hardware addresses,
 * paths. Whatever was made is found again by these names, so no record is needed that could be lost or wrong.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { encodeBase32, isUid } from "../../core/ids.ts";
import type { HostConfig } from "../host-config.ts";
import { contains, formatIpv4, type Ipv4Range, maskOf, parseIpv4, parseRange } from "./ipv4.ts";
import type { NetworkRequest } from "./networks.ts";

/** Where the kernel's named network namespaces are, by the convention of iproute2. */
export const netnsDirectory = "/run/netns";
/** Inside every network's namespace. */
export const bridgeName = "br0";
export const innerUplinkName = "uplink";

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
  range: Ipv4Range;
  cidr: string;
  netmask: string;
  gateway: string;
  domain: string;
  mtu: number;
  /** The host's address as its networks see it. */
  hostAddress: string;
  bridgeMac: string;
  uplinkMac: string;
  innerUplinkMac: string;
}

export const uplinkAliasPrefix = "strata:";

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

export interface PlanOptions {
  hostAddress: string;
  mtu: number;
}

/** @throws Invalid for values that the control plane never sends: they end up in rules and configuration files. */
export function planNetwork(
  config: Pick<HostConfig, "namespace" | "runDir">,
  request: NetworkRequest,
  options: PlanOptions,
): NetworkPlan {
  const range = parseRange(request.cidr);
  if (!range || range.prefixLength < 8 || range.prefixLength > 30) {
    throw invalid(request.uid, "range", request.cidr, "an IPv4 range such as 10.20.0.0/24");
  }
  const gateway = parseIpv4(request.gateway);
  if (gateway === undefined || !contains(range, gateway) || gateway === range.base) {
    throw invalid(request.uid, "gateway", request.gateway, `an address inside ${request.cidr}`);
  }
  if (!domainPattern.test(request.domain)) {
    throw invalid(request.uid, "domain", request.domain, "a DNS name such as demo.internal");
  }
  const names = networkNames(config, request.uid);
  return {
    ...names,
    range,
    cidr: request.cidr,
    netmask: formatIpv4(maskOf(range.prefixLength)),
    gateway: request.gateway,
    domain: request.domain,
    mtu: options.mtu,
    hostAddress: options.hostAddress,
    bridgeMac: hardwareAddress(names.netns, "bridge"),
    uplinkMac: hardwareAddress(names.netns, "uplink"),
    innerUplinkMac: hardwareAddress(names.netns, "inner uplink"),
  };
}

function nameHash(text: string, length: number): string {
  return encodeBase32(createHash("sha256").update(text).digest()).slice(0, length);
}

/**
 * Locally administered, and always the same for the same network: neighbours' caches stay right when an interface is
 * made again, and udev leaves an address alone that was given on creation.
 */
function hardwareAddress(netns: string, role: string): string {
  const hash = createHash("sha256").update(`${netns} ${role}`).digest();
  return ["02", ...[...hash.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

function invalid(uid: string, what: string, value: string, rule: string): StrataError {
  return new StrataError("Invalid", `network ${uid} cannot have the ${what} "${value}": it must be ${rule}`);
}
