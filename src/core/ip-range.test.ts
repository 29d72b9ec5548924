import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  contains,
  formatIp,
  formatRange,
  type IpAddress,
  overlaps,
  parseIp,
  parseRange,
} from "./ip-range.ts";

const range = (text: string) => {
  const parsed = parseRange(text);
  if (!parsed) throw new Error(`${text} is no range`);
  return parsed.range;
};

describe("addresses", () => {
  test.each([
    ["0.0.0.0", "0.0.0.0"],
    ["10.77.0.1", "10.77.0.1"],
    ["255.255.255.255", "255.255.255.255"],
    ["::", "::"],
    ["::1", "::1"],
    ["FD00:0:0::01", "fd00::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["1::", "1::"],
    ["::ffff:10.0.0.1", "::ffff:a00:1"],
  ])("%s is %s", (text, canonical) => {
    const address = parseIp(text);
    expect(address && formatIp(address)).toBe(canonical);
  });

  test.each([
    "",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1 ",
    "fe80::1%eth0",
    "1::2::3",
    ":::",
    "g::",
    "10.0.0.1/8",
  ])("%j is none", (text) => expect(parseIp(text)).toBeUndefined());

  it("survive formatting and parsing", () => {
    const address = fc.oneof(
      fc.bigInt(0n, 2n ** 32n - 1n).map((value): IpAddress => ({ family: 4, value })),
      fc.bigInt(0n, 2n ** 128n - 1n).map((value): IpAddress => ({ family: 6, value })),
      // Runs of zeros, which the short form is about.
      fc.array(fc.constantFrom<bigint>(0n, 0n, 1n, 0xffffn), { minLength: 8, maxLength: 8 }).map(
        (groups): IpAddress => ({
          family: 6,
          value: groups.reduce((value, group) => (value << 16n) | group, 0n),
        }),
      ),
    );
    fc.assert(
      fc.property(address, (one) => {
        expect(parseIp(formatIp(one))).toEqual(one);
      }),
    );
  });
});

describe("ranges", () => {
  test.each([
    ["10.0.0.0/8", "10.0.0.0/8", true],
    ["10.1.2.3/8", "10.0.0.0/8", false],
    ["0.0.0.0/0", "0.0.0.0/0", true],
    ["fd00:1::/48", "fd00:1::/48", true],
    ["fd00:1::5/64", "fd00:1::/64", false],
    ["::/0", "::/0", true],
  ])("%s is %s", (text, canonical, exact) => {
    const parsed = parseRange(text);
    expect(parsed && formatRange(parsed.range)).toBe(canonical);
    expect(parsed?.exact).toBe(exact);
  });

  test.each(["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "fd00::/129", "/8", "10.0.0.0/8/8"])(
    "%j is none",
    (text) => expect(parseRange(text)).toBeUndefined(),
  );

  it("contain and overlap one another", () => {
    expect(contains(range("10.0.0.0/8"), range("10.255.0.0/16"))).toBe(true);
    expect(contains(range("10.255.0.0/16"), range("10.0.0.0/8"))).toBe(false);
    expect(contains(range("10.0.0.0/8"), { family: 4, value: 10n << 24n })).toBe(true);
    expect(contains(range("0.0.0.0/0"), range("::/0"))).toBe(false);
    expect(overlaps(range("10.0.0.0/8"), range("10.3.0.0/24"))).toBe(true);
    expect(overlaps(range("10.0.0.0/24"), range("10.0.1.0/24"))).toBe(false);
    expect(overlaps(range("0.0.0.0/0"), range("::/0"))).toBe(false);
  });
});
