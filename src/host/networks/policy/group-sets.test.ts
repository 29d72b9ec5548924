import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  contains,
  formatIp,
  type IpFamily,
  lastOf,
  overlaps,
  parseIp,
  parseRange,
} from "../../../core/ip-range.ts";
import { evaluateRules, type Protocol } from "../../../kinds/reachability/rules.ts";
import type { RulePolicy } from "../networks.ts";
import { type GroupSets, mergeIntervals, planGroupSets, widestRanges } from "./group-sets.ts";

/** Few distinct values, so that ranges meet, overlap and repeat. */
const address = fc
  .tuple(fc.constantFrom<IpFamily>(4, 6), fc.nat({ max: 15 }), fc.nat({ max: 3 }))
  .map(([family, high, low]) =>
    family === 4
      ? { family, value: (BigInt(high) << 28n) | BigInt(low) }
      : { family, value: (BigInt(high) << 124n) | BigInt(low) },
  );
const range = fc
  .tuple(address, fc.constantFrom(0, 1, 2, 3, 4, 31, 32, 126, 128))
  .map(([{ family, value }, length]) => {
    const text = `${formatIp({ family, value })}/${family === 4 ? Math.min(length, 32) : length}`;
    const parsed = parseRange(text)?.range;
    if (!parsed) throw new Error(text);
    return `${formatIp({ family, value: parsed.base })}/${parsed.prefixLength}`;
  });
const port = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(65_534, 65_535));
const ports = fc.tuple(port, port).map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }));
const groups = ["gaaaaaaaaaaaaaaa", "gbbbbbbbbbbbbbbb"];
const peer: fc.Arbitrary<RulePolicy["peer"]> = fc.oneof(
  { weight: 3, arbitrary: range.map((cidr) => ({ cidr })) },
  { weight: 1, arbitrary: fc.constantFrom(...groups).map((group) => ({ group })) },
);
const rule: fc.Arbitrary<RulePolicy> = fc.oneof(
  fc.record({ protocol: fc.constantFrom("any" as const, "icmp" as const), peer }),
  fc.record(
    { protocol: fc.constantFrom("tcp" as const, "udp" as const), ports, peer },
    { requiredKeys: ["protocol", "peer"] },
  ),
);
const packet = fc.record({
  protocol: fc.constantFrom<Protocol>("tcp", "udp", "icmp", "other"),
  port: fc.oneof(fc.integer({ min: 1, max: 14 }), fc.constantFrom(65_534, 65_535)),
  peer: address,
  peerGroups: fc.subarray(groups).map((list) => new Set(list)),
});

describe("planGroupSets", () => {
  it("comes to the verdict of the rules read one by one", () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 12 }), packet, (rules, { port, ...rest }) => {
        const withPort = rest.protocol === "tcp" || rest.protocol === "udp" ? { ...rest, port } : rest;
        expect(matches(planGroupSets(rules), withPort)).toBe(evaluateRules(rules, withPort) !== undefined);
      }),
      { numRuns: 3_000 },
    );
  });

  it("never has elements in one set that overlap, nor more of them than rules", () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 16 }), (rules) => {
        const sets = planGroupSets(rules);
        for (const ranges of [sets.any[4], sets.any[6], sets.icmp[4], sets.icmp[6]]) {
          const parsed = ranges.map(requireRange);
          parsed.forEach((one, index) => {
            for (const other of parsed.slice(index + 1)) expect(overlaps(one, other)).toBe(false);
          });
        }
        let count = 0;
        for (const { elements } of sets.ports.values()) {
          count += elements.length;
          const parsed = elements.map(parseElement);
          parsed.forEach((one, index) => {
            for (const other of parsed.slice(index + 1)) {
              const apart =
                one.protocol !== other.protocol ||
                !overlaps(one.range, other.range) ||
                one.last < other.first ||
                other.last < one.first;
              expect(apart).toBe(true);
            }
          });
        }
        expect(count).toBeLessThanOrEqual(rules.length);
      }),
    );
  });

  it("changes only elements of the range that a rule is about", () => {
    const many = Array.from(
      { length: 1_000 },
      (_, index): RulePolicy => ({
        protocol: "tcp",
        ports: { first: index + 1, last: index + 5 },
        peer: { cidr: `10.${index >> 8}.${index & 255}.0/24` },
      }),
    );
    const elements = (rules: RulePolicy[]) =>
      [...planGroupSets(rules).ports.values()].flatMap((set) => set.elements);
    const before = new Set(elements(many));
    const wide: RulePolicy = {
      protocol: "tcp",
      ports: { first: 1, last: 65_535 },
      peer: { cidr: "0.0.0.0/0" },
    };
    const after = elements([wide, ...many]);
    expect(after.filter((element) => !before.has(element))).toEqual(["0.0.0.0/0 . tcp . 1-65535"]);
    expect(after.length).toBe(before.size + 1);
  });
});

describe("mergeIntervals", () => {
  it("keeps the same numbers by intervals that do not touch", () => {
    const interval = fc.tuple(fc.nat(30), fc.nat(30)).map(([a, b]) => ({
      first: Math.min(a, b),
      last: Math.max(a, b),
    }));
    fc.assert(
      fc.property(fc.array(interval), (intervals) => {
        const merged = mergeIntervals(intervals);
        for (let number = 0; number <= 31; number++) {
          const inside = (list: typeof intervals) =>
            list.some(({ first, last }) => first <= number && number <= last);
          expect(inside(merged)).toBe(inside(intervals));
        }
        merged.slice(1).forEach(({ first }, index) => {
          expect(first).toBeGreaterThan((merged[index]?.last ?? 0) + 1);
        });
      }),
    );
  });
});

describe("widestRanges", () => {
  it("keeps what is not part of another", () => {
    const ranges = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "192.168.0.0/24", "192.168.1.0/24"].map(
      requireRange,
    );
    expect(widestRanges(ranges).map(({ prefixLength }) => prefixLength)).toEqual([8, 24, 24]);
  });
});

/** What the kernel does with the sets. */
function matches(sets: GroupSets, packet: Parameters<typeof evaluateRules>[1]): boolean {
  const { protocol, peer, port = -1, peerGroups } = packet;
  const within = (ranges: readonly string[]) => ranges.some((text) => contains(requireRange(text), peer));
  if (within(sets.any[peer.family])) return true;
  if (protocol === "icmp" && within(sets.icmp[peer.family])) return true;
  for (const { family, elements } of sets.ports.values()) {
    if (family !== peer.family) continue;
    for (const element of elements.map(parseElement)) {
      const { range, first, last } = element;
      if (element.protocol === protocol && contains(range, peer) && first <= port && port <= last)
        return true;
    }
  }
  for (const [group, traffic] of sets.peers) {
    if (!peerGroups.has(group)) continue;
    if (traffic.any || (traffic.icmp && protocol === "icmp")) return true;
    if (protocol !== "tcp" && protocol !== "udp") continue;
    if (traffic.ports[protocol].some(({ first, last }) => first <= port && port <= last)) return true;
  }
  return false;
}

function parseElement(element: string) {
  const [cidr = "", protocol = "", interval = ""] = element.split(" . ");
  const [first = "", last = first] = interval.split("-");
  return { range: requireRange(cidr), protocol, first: Number(first), last: Number(last) };
}

function requireRange(text: string) {
  const parsed = parseRange(text);
  if (!parsed?.exact) throw new Error(`${text} is no range`);
  expect(lastOf(parsed.range)).toBeGreaterThanOrEqual(parsed.range.base);
  expect(parseIp(text.split("/")[0] ?? "")).toBeDefined();
  return parsed.range;
}
