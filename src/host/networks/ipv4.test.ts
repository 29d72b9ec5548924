import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressCount, contains, formatIpv4, formatRange, overlaps, parseIpv4, parseRange } from "./ipv4.ts";

const address = fc.integer({ min: 0, max: 0xffff_ffff });
const range = fc.tuple(address, fc.integer({ min: 0, max: 32 })).map(([any, prefixLength]) => {
  const size = 2 ** (32 - prefixLength);
  return { base: Math.floor(any / size) * size, prefixLength };
});

describe("IPv4", () => {
  it("reads back what it writes", () => {
    fc.assert(
      fc.property(address, (value) => {
        expect(parseIpv4(formatIpv4(value))).toBe(value);
      }),
    );
    fc.assert(
      fc.property(range, (value) => {
        expect(parseRange(formatRange(value))).toEqual(value);
      }),
    );
  });

  it.each(["", "10.0.0", "10.0.0.256", "10.0.0.01", "10.0.0.1 ", "10.0.0.-1", "::1", "1e1.0.0.0"])(
    "refuses the address %j",
    (text) => expect(parseIpv4(text)).toBeUndefined(),
  );

  it.each(["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "10.0.0.0/024", "10.0.0.0/", "10.0.0.0/24\n"])(
    "refuses the range %j",
    (text) => expect(parseRange(text)).toBeUndefined(),
  );

  it("holds exactly the addresses from its first to its last", () => {
    fc.assert(
      fc.property(range, address, (r, a) => {
        expect(contains(r, a)).toBe(a >= r.base && a < r.base + addressCount(r));
      }),
    );
  });

  it("overlaps exactly where intervals do, in both directions", () => {
    fc.assert(
      fc.property(range, range, (a, b) => {
        const meet = a.base < b.base + addressCount(b) && b.base < a.base + addressCount(a);
        expect(overlaps(a, b)).toBe(meet);
        expect(overlaps(b, a)).toBe(meet);
      }),
    );
  });
});
