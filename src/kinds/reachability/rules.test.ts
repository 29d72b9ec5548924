import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseIp } from "../../core/ip-range.ts";
import { evaluateRules, formatRule, type Protocol, type Rule, ruleOf } from "./rules.ts";

const ip = (text: string) => {
  const address = parseIp(text);
  if (!address) throw new Error(`${text} is no address`);
  return address;
};
const packet = (protocol: Protocol, port: number | undefined, peer: string, ...groups: string[]) => ({
  protocol,
  ...(port === undefined ? {} : { port }),
  peer: ip(peer),
  peerGroups: new Set(groups),
});

describe("the first rule that matches", () => {
  const rules: Rule[] = [
    { protocol: "tcp", ports: { first: 80, last: 80 }, peer: { cidr: "0.0.0.0/0" } },
    { protocol: "tcp", ports: { first: 8000, last: 8100 }, peer: { cidr: "10.0.0.0/8" } },
    { protocol: "any", peer: { group: "db" } },
    { protocol: "icmp", peer: { cidr: "::/0" } },
    { protocol: "udp", peer: { cidr: "10.1.0.0/16" } },
  ];
  test.each([
    ["a port", packet("tcp", 80, "203.0.113.9"), 0],
    ["another protocol's port", packet("udp", 80, "203.0.113.9"), undefined],
    ["another family", packet("tcp", 80, "2001:db8::1"), undefined],
    ["the first of a range", packet("tcp", 8000, "10.9.9.9"), 1],
    ["the last of a range", packet("tcp", 8100, "10.9.9.9"), 1],
    ["behind a range", packet("tcp", 8101, "10.9.9.9"), undefined],
    ["a group, any protocol", packet("other", undefined, "10.0.0.9", "db"), 2],
    ["another group", packet("other", undefined, "10.0.0.9", "web"), undefined],
    ["a ping over IPv6", packet("icmp", undefined, "fd00::1"), 3],
    ["a ping over IPv4", packet("icmp", undefined, "10.1.0.1"), undefined],
    ["all ports of a protocol", packet("udp", 9, "10.1.2.3"), 4],
  ])("%s", (_what, seen, expected) => expect(evaluateRules(rules, seen)).toBe(expected));
});

test("without rules nothing passes; one more rule never takes anything away", () => {
  const rule = fc.record({
    protocol: fc.constantFrom("any" as const, "tcp" as const, "udp" as const, "icmp" as const),
    peer: fc.oneof(
      fc.constantFrom("10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/0", "::/0").map((cidr) => ({ cidr })),
      fc.constantFrom("a", "b").map((group) => ({ group })),
    ),
  });
  const seen = fc
    .record({
      protocol: fc.constantFrom<Protocol>("tcp", "udp", "icmp", "other"),
      peer: fc.constantFrom("10.0.0.1", "10.0.1.1", "192.0.2.1", "fd00::1"),
      groups: fc.subarray(["a", "b"]),
    })
    .map(({ protocol, peer, groups }) => packet(protocol, 80, peer, ...groups));
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 8 }), rule, seen, (rules, more, one) => {
      expect(evaluateRules([], one)).toBeUndefined();
      const before = evaluateRules(rules, one);
      if (before !== undefined) expect(evaluateRules([...rules, more], one)).toBe(before);
    }),
  );
});

test("rules of a spec are said as people say them", () => {
  const web = { protocol: "tcp", ports: "80-81", cidr: "0.0.0.0/0", description: "" } as const;
  expect(ruleOf(web)).toEqual({
    protocol: "tcp",
    ports: { first: 80, last: 81 },
    peer: { cidr: "0.0.0.0/0" },
  });
  expect(formatRule(web, "ingress")).toBe("tcp 80-81 from 0.0.0.0/0");
  expect(formatRule({ protocol: "any", group: "db", description: "" }, "egress")).toBe("any to group db");
});
