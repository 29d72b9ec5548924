/** Nothing gets into a rule that is not exactly what it claims to be: values are checked here, and only here. */
import { StrataError } from "../../../core/errors.ts";
import { isUid } from "../../../core/ids.ts";
import type { IpFamily } from "../../../core/ip-range.ts";
import type { NetworkPolicy, RulePolicy } from "../networks.ts";
import type { FirewallNetwork } from "./firewall.ts";
import { addressOf, rangeOf } from "./known-texts.ts";

const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;
const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/** Of a range or an address that was checked. */
export function familyOf(text: string): IpFamily {
  return text.includes(":") ? 6 : 4;
}

/** @throws Invalid, naming the value. */
export function requireNetwork(network: FirewallNetwork): void {
  const check = checker(`network ${network.uid}`);
  check("uid", network.uid, isUid(network.uid));
  const { uplink } = network;
  for (const name of [uplink.inner, uplink.host]) check("uplink", name, namePattern.test(name));
  for (const address of [uplink.hostAddress, uplink.innerAddress]) {
    check("uplink address", address, isAddress(address, 4));
  }
  for (const address of [uplink.hostAddress6, uplink.innerAddress6]) {
    if (address !== undefined) check("uplink address", address, isAddress(address, 6));
  }
  for (const range of network.ranges) check("range", range, isRange(range));
  for (const { bridge } of network.subnets) check("bridge", bridge, namePattern.test(bridge));
  for (const { name, ranges } of network.peerings) {
    check("peering", name, namePattern.test(name));
    for (const range of ranges) check("range of a peering", range, isRange(range));
  }
  if (network.metadata) check("metadata port", network.metadata.port, isPort(network.metadata.port));
}

/** @throws Invalid, naming the value; also for what one set cannot hold twice. */
export function requirePolicy(uid: string, policy: NetworkPolicy): void {
  const check = checker(`network ${uid}`);
  const once = (what: string, values: readonly string[]) => {
    const seen = new Set<string>();
    for (const value of values) {
      check(`${what} twice`, value, !seen.has(value));
      seen.add(value);
    }
  };
  for (const card of policy.cards) {
    check("port", card.port, namePattern.test(card.port));
    check("MAC address", card.macAddress, macPattern.test(card.macAddress));
    check("address", card.ipAddress, isAddress(card.ipAddress, 4));
    if (card.ipv6Address !== undefined) check("address", card.ipv6Address, isAddress(card.ipv6Address, 6));
    for (const group of card.groups) check("security group", group, isUid(group));
  }
  once(
    "the address",
    policy.cards.flatMap(({ ipAddress, ipv6Address }) => [
      ipAddress,
      ...(ipv6Address === undefined ? [] : [ipv6Address]),
    ]),
  );
  for (const group of policy.groups) {
    check("security group", group.uid, isUid(group.uid));
    const wrong = group.ingress.find((rule) => !isRule(rule)) ?? group.egress.find((rule) => !isRule(rule));
    check("rule", JSON.stringify(wrong), wrong === undefined);
  }
  once(
    "the security group",
    policy.groups.map((group) => group.uid),
  );
  for (const { protocol, port, ipAddress, targetPort } of policy.publishedPorts) {
    const right = ["tcp", "udp"].includes(protocol) && isPort(port) && isPort(targetPort);
    check(
      "published port",
      `${protocol} ${port} to ${ipAddress}:${targetPort}`,
      right && isAddress(ipAddress, 4),
    );
  }
  once(
    "the published port",
    policy.publishedPorts.map(({ protocol, port }) => `${protocol} ${port}`),
  );
  for (const { address, ipAddress } of policy.addresses) {
    check(
      "floating address",
      `${address} for ${ipAddress}`,
      isAddress(address, 4) && isAddress(ipAddress, 4),
    );
  }
  once(
    "the floating address",
    policy.addresses.map(({ address }) => address),
  );
  once(
    "a floating address of the card",
    policy.addresses.map(({ ipAddress }) => ipAddress),
  );
}

type Check = (what: string, value: unknown, right: boolean) => void;

function checker(whose: string): Check {
  return (what, value, right) => {
    if (!right) throw new StrataError("Invalid", `${whose} cannot have ${what} "${value}" in its rules`);
  };
}

function isRule({ protocol, ports, peer }: RulePolicy): boolean {
  if (!["any", "tcp", "udp", "icmp"].includes(protocol)) return false;
  if (ports && !(isPort(ports.first) && isPort(ports.last) && ports.first <= ports.last)) return false;
  return "group" in peer ? isUid(peer.group) : isRange(peer.cidr);
}

function isAddress(text: string, family: IpFamily): boolean {
  return addressOf(text)?.family === family;
}

function isRange(text: string): boolean {
  return rangeOf(text) !== undefined;
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65_535;
}
