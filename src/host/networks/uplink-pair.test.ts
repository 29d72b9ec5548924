import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type IpRange, overlaps, parseRange } from "../../core/ip-range.ts";
import { chooseFreePair, pairOf, uplinkPair } from "./uplink-pair.ts";

const range = (text: string): IpRange => {
  const parsed = parseRange(text);
  if (!parsed) throw new Error(text);
  return parsed.range;
};

describe("pairs of uplink addresses", () => {
  it("follow from their number", () => {
    expect(uplinkPair(1)).toEqual({
      index: 1,
      hostAddress: "100.64.0.2",
      innerAddress: "100.64.0.3",
      cidr: "100.64.0.2/31",
      hostAddress6: "fd73:7472:6174::2",
      innerAddress6: "fd73:7472:6174::3",
      cidr6: "fd73:7472:6174::2/127",
      table: 100_000_001,
    });
    expect(uplinkPair(2 ** 20 - 1).innerAddress).toBe("100.95.255.255");
  });

  it("are found by their addresses", () => {
    for (const index of [1, 2, 77_777, 2 ** 20 - 1]) {
      const pair = uplinkPair(index);
      expect(pairOf(pair.hostAddress)).toEqual(pair);
      expect(pairOf(pair.innerAddress)).toEqual(pair);
    }
    for (const other of ["100.64.0.1", "100.63.255.255", "100.96.0.0", "10.0.0.1", "fd73:7472:6174::2", ""]) {
      expect(pairOf(other)).toBeUndefined();
    }
  });

  it("are the same for the same name, and free", () => {
    const first = chooseFreePair("strata-a", []);
    expect(chooseFreePair("strata-a", [range("0.0.0.0/0"), range("10.0.0.0/8")])).toEqual(first);
    expect(chooseFreePair("strata-b", [])).not.toEqual(first);
    expect(chooseFreePair("strata-a", [range(`${first?.innerAddress}/32`)])?.index).toBe(
      (first?.index ?? 0) + 1,
    );
    expect(chooseFreePair("strata-a", [range("100.64.0.0/11")])).toBeUndefined();
    expect(chooseFreePair("strata-a", [range("64.0.0.0/2")])).toBeUndefined();
  });

  it("are found wherever one is free", () => {
    const used = fc.array(
      fc.record({
        base: fc.integer({ min: 0, max: 2 ** 21 - 1 }),
        prefixLength: fc.integer({ min: 12, max: 32 }),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(fc.string(), used, (name, ranges) => {
        const inUse = ranges.map(({ base, prefixLength }) => {
          const size = 1n << BigInt(32 - prefixLength);
          const first = range("100.64.0.0/11").base + BigInt(base);
          return { family: 4 as const, base: (first / size) * size, prefixLength };
        });
        const pair = chooseFreePair(name, inUse);
        if (pair) expect(inUse.some((one) => overlaps(one, range(pair.cidr)))).toBe(false);
        else expect(inUse.length).toBeGreaterThan(1);
      }),
    );
  });
});
