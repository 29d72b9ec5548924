import fc from "fast-check";
import { expect, test } from "vitest";
import type { GuestNic } from "../driver.ts";
import { insideCommands, rangeOf } from "./card-ports.ts";

const nic: GuestNic = {
  name: "eth0",
  macAddress: "02:00:00:00:00:01",
  ipAddress: "10.0.0.2",
  prefixLength: 24,
  gateway: "10.0.0.1",
  ipv6: { address: "fd00:1:2:3::2", prefixLength: 64, gateway: "fd00:1:2:3::1" },
  mtu: 1450,
  netns: "/run/netns/n",
  bridge: "br0",
  port: "g-1",
};

test("the guest's own card has the default routes", () => {
  expect(insideCommands(nic, true)).toEqual({
    ipv4: [
      "address add 10.0.0.2/24 brd + dev eth0",
      "link set dev eth0 up",
      "route add default via 10.0.0.1 dev eth0 onlink",
    ],
    ipv6: [
      "address add fd00:1:2:3::2/128 dev eth0 nodad",
      "route add fd00:1:2:3::1/128 dev eth0 metric 256",
      "route add fd00:1:2:3:0:0:0:0/64 via fd00:1:2:3::1 dev eth0 metric 256",
      "route add default via fd00:1:2:3::1 dev eth0",
    ],
  });
});

test("what is sent from a further card's addresses leaves by it", () => {
  const { ipv4, ipv6 } = insideCommands({ ...nic, name: "eth1" }, false);
  const table = 0x0a000002;
  expect(ipv4).toContain(`route add default via 10.0.0.1 dev eth1 onlink table ${table}`);
  expect(ipv4).toContain(`rule add from 10.0.0.2 lookup ${table}`);
  expect(ipv6).toContain(`route add default via fd00:1:2:3::1 dev eth1 table ${table}`);
  expect(ipv6).toContain(`rule add from fd00:1:2:3::2 lookup ${table}`);
  expect([...ipv4, ...ipv6].filter((line) => /default/.test(line) && !/table/.test(line))).toEqual([]);
});

test("a link-local gateway needs no route, and without IPv6 there are no commands for it", () => {
  const local = insideCommands(
    { ...nic, ipv6: { ...(nic.ipv6 as object), gateway: "fe80::1" } as never },
    true,
  );
  expect(local.ipv6.some((line) => line.includes("fe80::1/128"))).toBe(false);
  const { ipv6: _none, ...only4 } = nic;
  expect(insideCommands(only4, true).ipv6).toEqual([]);
});

test("the range of an address keeps the prefix's bits and no others", () => {
  const groups = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 });
  const toNumber = (text: string) =>
    text.split(":").reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
  fc.assert(
    fc.property(groups, fc.integer({ min: 0, max: 128 }), (parts, prefix) => {
      const address = parts.map((part) => part.toString(16)).join(":");
      const [base = "", length] = rangeOf(address, prefix).split("/");
      expect(Number(length)).toBe(prefix);
      const shift = BigInt(128 - prefix);
      expect(toNumber(base)).toBe((toNumber(address) >> shift) << shift);
    }),
  );
  expect(rangeOf("fd00::1", 8)).toBe("fd00:0:0:0:0:0:0:0/8");
});
