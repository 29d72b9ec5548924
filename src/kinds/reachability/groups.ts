/** What a card's security groups say to one packet, rule by rule. Pure. */
import { formatIp } from "../../core/ip-range.ts";
import type { SecurityGroup, SecurityRule } from "../security-group.ts";
import { evaluateRules, formatRule, matchesTraffic, type RulePacket, ruleMatches, ruleOf } from "./rules.ts";

export interface RuleVerdict {
  /** Counted from 1. */
  number: number;
  rule: string;
  matches: boolean;
  /** What did not fit. */
  because?: "protocol or port" | "the other side";
}

export interface GroupVerdict {
  group: string;
  allows: boolean;
  /** All that were looked at: up to the first that matches. */
  rules: readonly RuleVerdict[];
}

/** The packet passes when one rule of one group matches; the groups after that are not asked. */
export function askGroups(
  direction: "ingress" | "egress",
  card: string,
  groups: readonly { name: string; group: SecurityGroup | undefined }[],
  packet: RulePacket,
): { allowed: boolean; text: string; verdicts: GroupVerdict[] } {
  const way = direction === "ingress" ? "in" : "out";
  const verdicts: GroupVerdict[] = [];
  for (const { name, group } of groups) {
    const rules = group?.spec[direction] ?? [];
    const index = evaluateRules(rules.map(ruleOf), packet);
    const seen = index === undefined ? rules : rules.slice(0, index + 1);
    verdicts.push({
      group: name,
      allows: index !== undefined,
      rules: seen.map((rule, at) => ruleVerdict(rule, at + 1, direction, packet)),
    });
    const rule = index === undefined ? undefined : rules[index];
    if (rule === undefined || index === undefined) continue;
    const said = formatRule(rule, direction);
    return {
      allowed: true,
      text: `security group ${name} lets it ${way} by rule ${index + 1}: ${said}`,
      verdicts,
    };
  }
  const names = groups.map(({ name }) => name).join(", ");
  const text =
    groups.length === 0
      ? `${card} has no security group, so nothing may go ${way}`
      : `no ${direction} rule of ${card}'s security ${groups.length > 1 ? "groups" : "group"} ${names} allows ${packetText(packet, direction)}`;
  return { allowed: false, text, verdicts };
}

function ruleVerdict(
  rule: SecurityRule,
  number: number,
  direction: "ingress" | "egress",
  packet: RulePacket,
): RuleVerdict {
  const form = ruleOf(rule);
  const said = { number, rule: formatRule(rule, direction) };
  if (ruleMatches(form, packet)) return { ...said, matches: true };
  const because = matchesTraffic(form, packet) ? "the other side" : "protocol or port";
  return { ...said, matches: false, because };
}

function packetText({ protocol, port, peer }: RulePacket, direction: "ingress" | "egress"): string {
  const traffic = [protocol, ...(port === undefined ? [] : [port])].join(" ");
  return `${traffic} ${direction === "ingress" ? "from" : "to"} ${formatIp(peer)}`;
}
