import fc from "fast-check";
import { expect, test } from "vitest";
import type { GuestNic } from "../driver.ts";
import { cardTexts, prefixOf, ruleRemovals } from "./cards.ts";

const nic: GuestNic = {
  name: "eth1",
  macAddress: "02:ab:cd:00:00:05",
  ipAddress: "10.1.2.5",
  prefixLength: 20,
  gateway: "10.1.0.1",
  ipv6: { address: "fd12:3456:789a:1::5", prefixLength: 64, gateway: "fd12:3456:789a:1::1" },
  mtu: 1450,
  netns: "/run/netns/strata-abc",
  bridge: "br0",
  port: "p0123456789",
};

const shown = (texts: object) =>
  Object.entries(texts)
    .map(([name, text]) => `[${name}]\n${text}`)
    .join("");

test("a guest's first card has the default routes", () => {
  const texts = cardTexts({ ...nic, name: "eth0" }, { first: true, mark: "run1", guestNetns: "/ns" });
  expect(shown(texts)).toMatchInlineSnapshot(`
    "[pair]
    link add name p0123456789 mtu 1450 type veth peer name eth0 address 02:ab:cd:00:00:05 mtu 1450 netns /ns
    [outside]
    link add name p0123456789 mtu 1450 type veth peer name eth0 address 02:ab:cd:00:00:05 mtu 1450 netns /ns
    link set dev p0123456789 addrgenmode none
    link set dev p0123456789 master br0
    link set dev p0123456789 type bridge_slave isolated on learning off flood off mcast_flood off
    link set dev p0123456789 up alias run1
    [forwarding]
    fdb replace 02:ab:cd:00:00:05 dev p0123456789 master static
    [inside]
    link set dev eth0 up
    address add 10.1.2.5/20 broadcast 10.1.15.255 dev eth0
    address add fd12:3456:789a:1::5/128 dev eth0 nodad
    route add default via 10.1.0.1 dev eth0
    route add fd12:3456:789a:1::1/128 dev eth0
    route add default via fd12:3456:789a:1::1 dev eth0 metric 512
    [inside6]
    "
  `);
});

test("a further card answers the way it was asked", () => {
  const texts = cardTexts(nic, { first: false, mark: "run1", guestNetns: "/ns" });
  expect(shown(texts)).toMatchInlineSnapshot(`
    "[pair]
    link add name p0123456789 mtu 1450 type veth peer name eth1 address 02:ab:cd:00:00:05 mtu 1450 netns /ns
    [outside]
    link add name p0123456789 mtu 1450 type veth peer name eth1 address 02:ab:cd:00:00:05 mtu 1450 netns /ns
    link set dev p0123456789 addrgenmode none
    link set dev p0123456789 master br0
    link set dev p0123456789 type bridge_slave isolated on learning off flood off mcast_flood off
    link set dev p0123456789 up alias run1
    [forwarding]
    fdb replace 02:ab:cd:00:00:05 dev p0123456789 master static
    [inside]
    link set dev eth1 up
    address add 10.1.2.5/20 broadcast 10.1.15.255 dev eth1
    address add fd12:3456:789a:1::5/128 dev eth1 nodad
    route add default via 10.1.0.1 dev eth1 table 1001
    rule add from 10.1.2.5/32 lookup 1001
    route add fd12:3456:789a:1::1/128 dev eth1 metric 2025
    route add default via fd12:3456:789a:1::1 dev eth1 table 1001
    route add fd12:3456:789a:1:0:0:0:0/64 via fd12:3456:789a:1::1 dev eth1 metric 2025
    [inside6]
    rule add from fd12:3456:789a:1::5/128 lookup 1001
    "
  `);
  expect(ruleRemovals(nic)).toMatchInlineSnapshot(`
    {
      "inside": "rule del from 10.1.2.5/32 lookup 1001
    ",
      "inside6": "rule del from fd12:3456:789a:1::5/128 lookup 1001
    ",
    }
  `);
});

test("without IPv6 there is none", () => {
  const { ipv6: _, ...old } = nic;
  const texts = cardTexts(old, { first: false, mark: "run1", guestNetns: "/ns" });
  expect(shown(texts)).not.toMatch(/fd12|128|nodad/);
  expect(ruleRemovals(old).inside6).toBe("");
});

test("a link-local gateway is there already", () => {
  const ipv6 = { address: "fd00::5", prefixLength: 64, gateway: "fe80::1" };
  const { inside } = cardTexts({ ...nic, ipv6 }, { first: true, mark: "m", guestNetns: "/ns" });
  expect(inside).toContain("route add default via fe80::1 dev eth1 metric 512\n");
  expect(inside).not.toContain("fe80::1/128");
});

test("the range an IPv6 address is in", () => {
  expect(prefixOf("fd12:3456:789a:1::5", 64)).toBe("fd12:3456:789a:1:0:0:0:0/64");
  expect(prefixOf("::1", 128)).toBe("0:0:0:0:0:0:0:1/128");
  expect(prefixOf("fd00::", 8)).toBe("fd00:0:0:0:0:0:0:0/8");
  expect(prefixOf("fdff:ffff::1", 20)).toBe("fdff:f000:0:0:0:0:0:0/20");
  const length = fc.integer({ min: 1, max: 128 });
  fc.assert(
    fc.property(
      fc.ipV6().filter((text) => !text.includes(".")),
      length,
      (address, bits) => {
        const [prefix = ""] = prefixOf(address, bits).split("/");
        expect(prefixOf(prefix, bits)).toBe(`${prefix}/${bits}`);
      },
    ),
  );
});
