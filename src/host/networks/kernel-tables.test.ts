import { describe, expect, it } from "vitest";
import { parseRange } from "../../core/ip-range.ts";
import { defaultDevices6, findConflict, parseRoutes } from "./kernel-tables.ts";

const routeText = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT                                                       
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0                                                                               
sabcd1	0009D50A	0109D50A	0003	0	0	0	00FFFFFF	0	0	0                                                                              
*	0000A8C0	00000000	0201	0	0	0	0000FFFF	0	0	0                                                                              
tun0	0000100A	00000000	0001	0	0	0	0000F0FF	0	0	0                                                                              
`;

function range(text: string) {
  const parsed = parseRange(text);
  if (!parsed) throw new Error(text);
  return parsed.range;
}

describe("routes", () => {
  const routes = parseRoutes(routeText);

  it("are read from the kernel's table", () => {
    expect(routes).toEqual([
      { device: "eth0", range: range("0.0.0.0/0") },
      { device: "sabcd1", range: range("10.213.9.0/24") },
      { device: "*", range: range("192.168.0.0/16") },
      { device: "tun0", range: range("10.16.0.0/12") },
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
});

it("the way to the outside by IPv6 is told from refusals and other routes", () => {
  const zero = "0".repeat(32);
  const line = (destination: string, length: string, device: string) =>
    `${destination} ${length} ${zero} 00 ${zero} 00000400 00000003 00000000 00000003 ${device.padStart(8)}\n`;
  const prefix = `fd${"0".repeat(30)}`;
  expect(
    defaultDevices6(line(prefix, "40", "eth1") + line(zero, "00", "eth0") + line(zero, "00", "lo")),
  ).toEqual(["eth0"]);
  expect(defaultDevices6(line(zero, "00", "lo") + line(zero, "80", "eth0"))).toEqual([]);
  expect(defaultDevices6("")).toEqual([]);
});
