import { describe, expect, it } from "vitest";
import { parseIpv4, parseRange } from "./ipv4.ts";
import {
  findConflict,
  hasRoute,
  parseForwarding,
  parseLinks,
  parseLocalAddresses,
  parseRoutes,
} from "./kernel-tables.ts";

const routeText = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT                                                       
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0                                                                               
sabcd1	0009D50A	0109D50A	0003	0	0	0	00FFFFFF	0	0	0                                                                              
*	0000A8C0	00000000	0201	0	0	0	0000FFFF	0	0	0                                                                              
tun0	0000100A	00000000	0001	0	0	0	0000F0FF	0	0	0                                                                              
`;

function range(text: string) {
  const parsed = parseRange(text);
  if (!parsed) throw new Error(text);
  return parsed;
}

describe("routes", () => {
  const routes = parseRoutes(routeText);

  it("are read from the kernel's table", () => {
    expect(routes).toEqual([
      { device: "eth0", range: range("0.0.0.0/0"), gateway: parseIpv4("192.0.2.1") },
      { device: "sabcd1", range: range("10.213.9.0/24"), gateway: parseIpv4("10.213.9.1") },
      { device: "*", range: range("192.168.0.0/16"), gateway: 0 },
      { device: "tun0", range: range("10.16.0.0/12"), gateway: 0 },
    ]);
    expect(parseRoutes("Iface\tDestination\n")).toEqual([]);
  });

  it.each([
    ["10.213.9.0/24", "own", "sabcd1"],
    ["10.213.9.0/24", "sabcd1", undefined],
    ["10.213.9.128/25", "own", "sabcd1"],
    ["10.213.0.0/16", "own", "sabcd1"],
    ["10.20.0.0/24", "own", "tun0"],
    ["192.168.7.0/24", "own", "*"],
    ["10.99.0.0/16", "own", undefined], // the default route is no conflict
  ])("%s beside them, as %s, conflicts with %s", (wanted, own, device) => {
    expect(findConflict(routes, range(wanted), own)?.device).toBe(device);
  });

  it("are found only when device, range and gateway are right", () => {
    const wanted = { device: "sabcd1", range: range("10.213.9.0/24"), gateway: parseIpv4("10.213.9.1") ?? 0 };
    expect(hasRoute(routes, wanted)).toBe(true);
    expect(hasRoute(routes, { ...wanted, device: "sabcd2" })).toBe(false);
    expect(hasRoute(routes, { ...wanted, gateway: 0 })).toBe(false);
    expect(hasRoute(routes, { ...wanted, range: range("10.213.9.0/25") })).toBe(false);
  });
});

it("links are read with odd names", () => {
  const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo:       0       0    0    0
br-abc_1.5: 1 2 3
`;
  expect(parseLinks(text)).toEqual(["lo", "br-abc_1.5"]);
});

it("local addresses are told from networks and neighbours", () => {
  const text = `Local:
  +-- 0.0.0.0/1 3 1 5
     +-- 10.213.9.0/24 2 0 2
        +-- 10.213.9.0/31 1 0 0
           |-- 10.213.9.0
              /24 link UNICAST
           |-- 10.213.9.1
              /32 host LOCAL
        |-- 10.213.9.255
           /32 link BROADCAST
     |-- 100.64.0.1
        /32 link UNICAST
`;
  expect(parseLocalAddresses(text)).toEqual(new Set([parseIpv4("10.213.9.1")]));
});

it("forwarding is 1 for on and 2 for off", () => {
  const text = (value: number) => `Ip: Forwarding DefaultTTL\nIp: ${value} 64\nIcmp: InMsgs\nIcmp: 0\n`;
  expect(parseForwarding(text(1))).toBe(true);
  expect(parseForwarding(text(2))).toBe(false);
  expect(parseForwarding("")).toBe(false);
});
