/**
 * What security groups' rules mean, as plainly as it can be said: the first rule that matches allows a packet, without
 * one it is refused. The host's firewall is built for speed and must come to the same verdicts; `strata network trace`
 * and the pictures of a network use this.
 */
import { contains, type IpAddress, parseRange } from "../../core/ip-range.ts";
import { type PortRange, parsePorts, type SecurityRule } from "../security-group.ts";

/** A rule in the form the host gets it: ports as numbers, the other side as a range or a group's identity. */
export interface Rule {
  protocol: "any" | "tcp" | "udp" | "icmp";
  /** Left out: all. */
  ports?: PortRange;
  peer: { cidr: string } | { group: string };
}

export type Protocol = "tcp" | "udp" | "icmp" | "other";

/** One packet of the original direction, seen from the card whose rules are asked. */
export interface RulePacket {
  protocol: Protocol;
  /** Destination port; only with tcp and udp. */
  port?: number;
  /** The other side. */
  peer: IpAddress;
  /** The groups of the card that has this address; none when no card of the network has it. */
  peerGroups: ReadonlySet<string>;
}

/** Index of the first rule that allows the packet; undefined: none does, so it is refused. */
export function evaluateRules(rules: readonly Rule[], packet: RulePacket): number | undefined {
  const index = rules.findIndex((rule) => ruleMatches(rule, packet));
  return index < 0 ? undefined : index;
}

export function ruleMatches(rule: Rule, packet: RulePacket): boolean {
  return matchesTraffic(rule, packet) && matchesPeer(rule, packet);
}

/** Protocol and port, whoever the other side is. */
export function matchesTraffic(rule: Rule, packet: Pick<RulePacket, "protocol" | "port">): boolean {
  if (rule.protocol === "any") return true;
  if (rule.protocol !== packet.protocol) return false;
  if (rule.ports === undefined || rule.protocol === "icmp") return true;
  return packet.port !== undefined && packet.port >= rule.ports.first && packet.port <= rule.ports.last;
}

function matchesPeer(rule: Rule, packet: RulePacket): boolean {
  if ("group" in rule.peer) return packet.peerGroups.has(rule.peer.group);
  const range = parseRange(rule.peer.cidr)?.range;
  return range !== undefined && contains(range, packet.peer);
}

/** A rule of a spec; groups keep their names. */
export function ruleOf(rule: SecurityRule): Rule {
  const ports = rule.ports === undefined ? undefined : parsePorts(rule.ports);
  return {
    protocol: rule.protocol,
    ...(ports ? { ports } : {}),
    peer: rule.group === undefined ? { cidr: rule.cidr ?? "" } : { group: rule.group },
  };
}

/** `tcp 80 from 0.0.0.0/0`, `any to group db`. */
export function formatRule(rule: SecurityRule, direction: "ingress" | "egress"): string {
  const traffic = [rule.protocol, ...(rule.ports === undefined ? [] : [rule.ports])].join(" ");
  const peer = rule.group === undefined ? rule.cidr : `group ${rule.group}`;
  return `${traffic} ${direction === "ingress" ? "from" : "to"} ${peer}`;
}
