import { describe, expect, test } from "vitest";
import type { RouteTable } from "../../kinds/route-table.ts";
import { networkRequest, peeringUid } from "./request.ts";
import { networkOf, peeringOf, routeTableOf, subnetOf } from "./testing-resources.ts";

const blue = networkOf("blue", "b");
const red = networkOf("red", "r");
const structure = { network: blue, subnets: [], routeTables: [], peerings: [] };
const between = peeringUid(blue.metadata.uid, red.metadata.uid);
const blueToRed = peeringOf("to-red", { network: "blue", peerNetwork: "red" });

test("a network with one subnet, as it comes", () => {
  expect(networkRequest({ ...structure, subnets: [subnetOf("one", 0)] })).toEqual({
    uid: blue.metadata.uid,
    cidr: "10.98.0.0/16",
    ipv6Cidr: "fd00:98::/48",
    domain: "blue.internal",
    hostRoute: false,
    internet: true,
    subnets: [
      {
        name: "one",
        index: 0,
        cidr: "10.0.0.0/24",
        gateway: "10.0.0.1",
        ipv6Cidr: "fd00:0:0:0::/64",
        ipv6Gateway: "fd00:0:0:0::1",
      },
    ],
    peerings: [],
  });
});

test("nothing without a range", () => {
  const { cidr, ...status } = blue.status;
  expect(cidr && networkRequest({ ...structure, network: { ...blue, status } })).toBeUndefined();
});

test("the order of the resources does not matter, and a subnet without a range waits", () => {
  const [one, two] = [subnetOf("one", 0), subnetOf("two", 1)];
  const early = { ...subnetOf("early", 2), status: {} };
  const request = networkRequest({ ...structure, subnets: [two, early, one] });
  expect(request).toEqual(networkRequest({ ...structure, subnets: [one, two] }));
  expect(request?.subnets.map(({ name }) => name)).toEqual(["one", "two"]);
});

test("what spec says of the outside and of packets", () => {
  const network = networkOf("blue", "b", { internet: false, mtu: 9000 });
  expect(networkRequest({ ...structure, network })).toMatchObject({ internet: false, mtu: 9000 });
});

describe("peerings", () => {
  const of = (
    network: typeof blue,
    ...peerings: { peering: typeof blueToRed; other: typeof red | undefined }[]
  ) => networkRequest({ ...structure, network, peerings })?.peerings;

  test("both sides call it the same and tell each other's ranges", () => {
    expect(of(blue, { peering: blueToRed, other: red })).toEqual([
      { uid: between, network: red.metadata.uid, ranges: ["10.114.0.0/16", "fd00:114::/48"] },
    ]);
    expect(of(red, { peering: blueToRed, other: blue })).toEqual([
      { uid: between, network: blue.metadata.uid, ranges: ["10.98.0.0/16", "fd00:98::/48"] },
    ]);
    expect(between).toMatch(/^[0-9a-hjkmnp-tv-z]{16}$/);
  });

  test("two resources for one peering of two projects are one peering", () => {
    const back = peeringOf("back", { network: "red", peerNetwork: "blue", peerProject: "default" });
    expect(of(blue, { peering: blueToRed, other: red }, { peering: back, other: red })).toHaveLength(1);
  });

  test("one that waits, or whose other side is gone, is none", () => {
    const waiting = peeringOf("to-red", { network: "blue", peerNetwork: "red" }, "waiting");
    expect(of(blue, { peering: waiting, other: red })).toEqual([]);
    expect(of(blue, { peering: blueToRed, other: undefined })).toEqual([]);
  });
});

describe("route tables", () => {
  const routesOf = (routes: RouteTable["spec"]["routes"], state: "active" | "waiting" = "active") => {
    const peering = peeringOf("to-red", { network: "blue", peerNetwork: "red" }, state);
    const request = networkRequest({
      ...structure,
      subnets: [subnetOf("one", 0, { routeTable: "table" }), subnetOf("two", 1)],
      routeTables: [routeTableOf("other", []), routeTableOf("table", routes)],
      peerings: [{ peering, other: red }],
    });
    expect(request?.subnets[1]).not.toHaveProperty("routes");
    return request?.subnets[0]?.routes;
  };
  const toRed = { destination: "10.114.0.0/16", target: "peering", via: "to-red" } as const;

  test("belong to the subnets that name them", () => {
    const routes = [{ destination: "0.0.0.0/0", target: "internet" }, toRed] as const;
    expect(routesOf([...routes])).toEqual([
      { destination: "0.0.0.0/0", target: "internet" },
      { destination: "10.114.0.0/16", target: { peering: between } },
    ]);
    expect(routesOf([])).toEqual([]);
  });

  test("refuse what leads by a peering that is not active", () => {
    expect(routesOf([toRed], "waiting")).toEqual([{ destination: "10.114.0.0/16", target: "none" }]);
    expect(routesOf([{ ...toRed, via: "unknown" }])).toEqual([
      { destination: "10.114.0.0/16", target: "none" },
    ]);
  });
});
