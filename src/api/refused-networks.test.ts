import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createImage } from "../services/testing.ts";
import { raw, startTestApi, type TestApi } from "./testing.ts";

/** What users get wrong about networks: one problem each, with the place, the value and what would be right. */

let api: TestApi;
const base = "/v1/projects/default";

async function post(plural: string, name: string, spec: object) {
  const body = JSON.stringify({ metadata: { name }, spec });
  return raw(api.socketPath, "POST", `${base}/${plural}`, { body });
}

async function make(plural: string, name: string, spec: object = {}): Promise<void> {
  const answer = await post(plural, name, spec);
  if (answer.status !== 201) throw new Error(`${plural} ${name}: ${answer.text}`);
}

const instance = { type: "container", image: "debian" };
const rule = (more: object) => ({ ingress: [{ protocol: "tcp", cidr: "0.0.0.0/0", ...more }] });

beforeAll(async () => {
  api = await startTestApi();
  await createImage(api.services);
  await make("networks", "lan", { cidr: "10.1.0.0/16", ipv6Cidr: "fd00:1:1::/48", subnets: "custom" });
  await make("networks", "dmz", { cidr: "10.2.0.0/16", ipv6Cidr: "fd00:1:2::/48" });
  await make("networks", "twin", { cidr: "10.2.0.0/16" });
  await make("networks", "empty", { subnets: "custom" });
  await make("subnets", "a", { network: "lan", cidr: "10.1.0.0/24" });
  await make("subnets", "b", { network: "lan", cidr: "10.1.2.0/23" });
  await make("peerings", "lan-dmz", { network: "lan", peerNetwork: "dmz" });
  await make("route-tables", "dmz-routes", { network: "dmz", routes: [] });
  await make("security-groups", "web", rule({ ports: 80 }));
  await make("security-groups", "db", { ingress: [{ protocol: "tcp", ports: "5432", group: "web" }] });
  await make("instances", "web", { ...instance, network: "lan", subnet: "a", ipAddress: "10.1.0.9" });
  await make("network-interfaces", "spare", { network: "dmz", instance: "web" });
  await make("addresses", "front", { instance: "web" });
  await make("published-ports", "http", { port: 80, instance: "web" });
});

afterAll(() => api.close());

/** `refusal`: code, field, what its message names, and what would be right. */
type Row = [what: string, plural: string, spec: object, refusal: string];

const rows: Row[] = [
  [
    "a range of nobody's own",
    "networks",
    { cidr: "8.8.0.0/16" },
    "Invalid spec.cidr | 8.8.0.0/16 | 10.0.0.0/8",
  ],
  [
    "a range with host bits",
    "networks",
    { cidr: "10.0.0.7/24" },
    "Invalid spec.cidr | 10.0.0.7/24 | 10.0.0.0/24",
  ],
  [
    "a range that the host routes",
    "networks",
    { cidr: "10.77.0.0/16", hostRoute: true },
    "Conflict spec.cidr | 10.77.0.0/24 | hostRoute: false",
  ],
  [
    "a wrong IPv6 range",
    "networks",
    { ipv6Cidr: "2001:db8::/48" },
    "Invalid spec.ipv6Cidr | 2001:db8::/48 | fd00::/8",
  ],
  ["an MTU too small", "networks", { mtu: 500 }, "Invalid spec.mtu | 1280 | >= 1280"],
  [
    "overlapping subnets",
    "subnets",
    { network: "lan", cidr: "10.1.3.0/24" },
    "Conflict spec.cidr | 10.1.3.0/24 | 10.1.1.0/24",
  ],
  [
    "a subnet outside",
    "subnets",
    { network: "lan", cidr: "10.9.0.0/24" },
    "Invalid spec.cidr | 10.9.0.0/24 | a part of 10.1.0.0/16",
  ],
  [
    "a subnet of a whole network",
    "subnets",
    { network: "dmz", cidr: "10.2.0.0/24" },
    "Invalid spec.network | dmz | spec.subnets: custom",
  ],
  [
    "a subnet of no network",
    "subnets",
    { network: "lon", cidr: "10.2.0.0/24" },
    'Invalid spec.network | did you mean "lan" | lan',
  ],
  [
    "a /64 of another network",
    "subnets",
    { network: "lan", cidr: "10.1.9.0/24", ipv6Cidr: "fd00:2::/64" },
    "Invalid spec.ipv6Cidr | fd00:2::/64 | fd00:1:1::/48",
  ],
  [
    "a /64 that is taken",
    "subnets",
    { network: "lan", cidr: "10.1.9.0/24", ipv6Cidr: "fd00:1:1::/64" },
    "Conflict spec.ipv6Cidr | fd00:1:1::/64 | fd00:1:1:2::/64",
  ],
  [
    "another network's route table",
    "subnets",
    { network: "lan", cidr: "10.1.9.0/24", routeTable: "dmz-routes" },
    "Invalid spec.routeTable | dmz-routes | lan",
  ],
  [
    "a route to what is local",
    "route-tables",
    { network: "lan", routes: [{ destination: "10.1.0.0/24", target: "none" }] },
    "Invalid spec.routes[0].destination | 10.1.0.0/24 | outside",
  ],
  [
    "a route by no peering",
    "route-tables",
    { network: "lan", routes: [{ destination: "10.2.0.0/16", target: "peering", via: "x" }] },
    'Invalid spec.routes[0].via | "x" | lan-dmz',
  ],
  [
    "a route by another's peering",
    "route-tables",
    { network: "twin", routes: [{ destination: "10.1.0.0/16", target: "peering", via: "lan-dmz" }] },
    "Invalid spec.routes[0].via | lan-dmz | twin",
  ],
  [
    "a route that leads nowhere",
    "route-tables",
    { network: "lan", routes: [{ destination: "10.2.0.0/16", target: "peering" }] },
    "Invalid spec.routes[0].via |  | ",
  ],
  [
    "a peering loop",
    "peerings",
    { network: "lan", peerNetwork: "lan" },
    "Invalid spec.peerNetwork | lan | another network",
  ],
  [
    "a peering the other way round",
    "peerings",
    { network: "dmz", peerNetwork: "lan" },
    "Conflict spec.peerNetwork | lan-dmz | no peering yet",
  ],
  [
    "overlapping peers",
    "peerings",
    { network: "dmz", peerNetwork: "twin" },
    "Conflict spec.peerNetwork | 10.2.0.0/16 | other ranges",
  ],
  [
    "two peers of one range",
    "peerings",
    { network: "lan", peerNetwork: "twin" },
    'Conflict spec.peerNetwork | "dmz" | ranges of their own',
  ],
  [
    "port 70000",
    "security-groups",
    rule({ ports: 70000 }),
    "Invalid spec.ingress[0].ports | 70000 | 1 to 65535",
  ],
  [
    "a range of ports upside down",
    "security-groups",
    rule({ ports: "90-80" }),
    "Invalid spec.ingress[0].ports | 90-80 | 1 to 65535",
  ],
  [
    "ports without a protocol",
    "security-groups",
    rule({ protocol: "icmp", ports: 80 }),
    "Invalid spec.ingress[0].ports |  | ",
  ],
  ["no other side", "security-groups", { ingress: [{ protocol: "tcp" }] }, "Invalid spec.ingress[0] |  | "],
  [
    "an unknown group",
    "security-groups",
    { egress: [{ protocol: "any", group: "wob" }] },
    'Invalid spec.egress[0].group | mean "web" | db, default, web',
  ],
  [
    "10,000 rules",
    "security-groups",
    {
      ingress: Array.from({ length: 10_000 }, () => ({
        protocol: "tcp",
        ports: "99999",
        cidr: "10.0.0.0/8",
        description: "no",
      })),
    },
    "Invalid spec.ingress | 1000 | <= 1000",
  ],
  [
    "an address outside its subnet",
    "instances",
    { ...instance, network: "lan", subnet: "a", ipAddress: "10.1.1.5" },
    "Invalid spec.ipAddress | 10.1.1.5 | 10.1.0.2 to 10.1.0.254",
  ],
  [
    "the gateway's address",
    "instances",
    { ...instance, network: "lan", subnet: "a", ipAddress: "10.1.0.1" },
    "Invalid spec.ipAddress | gateway | 10.1.0.2 to 10.1.0.254",
  ],
  [
    "the broadcast address",
    "instances",
    { ...instance, network: "lan", subnet: "a", ipAddress: "10.1.0.255" },
    "Invalid spec.ipAddress | broadcast | 10.1.0.2 to 10.1.0.254",
  ],
  [
    "an IPv6 address outside",
    "instances",
    { ...instance, network: "lan", subnet: "a", ipv6Address: "fd00:1:1:1::5" },
    "Invalid spec.ipv6Address | fd00:1:1:1::5 | fd00:1:1::2 to fd00:1:1:0:ffff:ffff:ffff:ffff",
  ],
  [
    "another's address",
    "instances",
    { ...instance, network: "lan", subnet: "a", ipAddress: "10.1.0.9" },
    'Conflict spec.ipAddress | instance "web" | nobody has',
  ],
  [
    "no choice of several subnets",
    "instances",
    { ...instance, network: "lan" },
    "Invalid spec.subnet | several | a, b",
  ],
  [
    "a network without subnets",
    "instances",
    { ...instance, network: "empty" },
    "Invalid spec.subnet | no subnets yet | ",
  ],
  [
    "another network's subnet",
    "instances",
    { ...instance, network: "dmz", subnet: "a" },
    "Invalid spec.subnet | lan | dmz",
  ],
  [
    "an unknown security group",
    "instances",
    { ...instance, securityGroups: ["webs"] },
    'Invalid spec.securityGroups[0] | mean "web" | db, default, web',
  ],
  [
    "a group twice",
    "instances",
    { ...instance, securityGroups: ["web", "web"] },
    "Invalid spec.securityGroups[1] | second time | ",
  ],
  [
    "an application without docker",
    "instances",
    { ...instance, application: { command: ["sh"] } },
    "Invalid spec.driver | left out | docker",
  ],
  [
    "a volume twice",
    "instances",
    {
      ...instance,
      driver: "docker",
      application: {
        command: ["sh"],
        volumes: [
          { name: "data", path: "/data" },
          { name: "data", path: "/more" },
        ],
      },
    },
    'Invalid spec.application.volumes[1].name | "data" a second time | once',
  ],
  [
    "a VM for docker",
    "instances",
    { ...instance, type: "vm", driver: "docker" },
    "Invalid spec.type | vm | container",
  ],
  [
    "a card for nobody",
    "network-interfaces",
    { network: "dmz", instance: "wab" },
    'Invalid spec.instance | mean "web" | web',
  ],
  [
    "cards of the same range",
    "network-interfaces",
    { network: "twin", instance: "web" },
    "Conflict spec.instance | dmz | different ranges",
  ],
  [
    "a second address",
    "addresses",
    { instance: "web" },
    'Conflict spec.instance | "front" | one address an instance',
  ],
  [
    "an address of no pool",
    "addresses",
    { ipAddress: "203.0.113.1" },
    "Invalid spec.ipAddress | 203.0.113.1 | 100.126.0.1 to 100.126.0.254",
  ],
  [
    "a taken address of the pool",
    "addresses",
    { ipAddress: "100.126.0.1" },
    'Conflict spec.ipAddress | "front" | a free one',
  ],
  [
    "a published port again",
    "published-ports",
    { port: 80, instance: "web" },
    "Conflict spec.port | 80/tcp | nobody has",
  ],
  [
    "published port 70000",
    "published-ports",
    { port: 70000, instance: "web" },
    "Invalid spec.port | 65535 | <= 65535",
  ],
  [
    "a port to nobody",
    "published-ports",
    { port: 81, instance: "wob" },
    'Invalid spec.instance | mean "web" | web',
  ],
];

test.each(rows)("%s is refused in one clear error", async (_what, plural, spec, refusal) => {
  const [, code = "", path = "", value = "", allowed = ""] =
    /^(\w+) (\S+) \| (.*) \| (.*)$/.exec(refusal) ?? [];
  const before = await api.store.revision();
  const answer = await post(plural, "bad", spec);
  expect(answer.headers["content-type"]).toBe("application/problem+json");
  expect(answer.json).toMatchObject({ code, fields: [{ path }] });
  expect(answer.json.fields).toHaveLength(1);
  expect(answer.status).toBe(code === "Invalid" ? 400 : 409);
  const [field] = answer.json.fields;
  expect(field.message).toContain(value);
  expect(field.allowed ?? "").toContain(allowed);
  expect(answer.json.detail).toContain(field.path);
  expect(answer.text.length).toBeLessThan(1500);
  expect(await api.store.revision()).toBe(before);
});

describe("deletions of what is used say by whom", () => {
  test.each([
    ["networks/lan", 'instance "web"'],
    ["networks/dmz", 'network interface "spare"'],
    ["subnets/a", 'instance "web"'],
    ["subnets/dmz", 'the one subnet of network "dmz"'],
    ["security-groups/web", 'a rule of security group "db"'],
    ["security-groups/default", "every project has it"],
    ["network-interfaces/spare", 'instance "web"; detach it first'],
  ])("%s", async (path, why) => {
    const before = await api.store.revision();
    const answer = await raw(api.socketPath, "DELETE", `${base}/${path}`);
    expect(answer).toMatchObject({ status: 409, json: { code: "Conflict" } });
    expect(answer.json.detail).toContain(why);
    expect(await api.store.revision()).toBe(before);
  });
});

test("what never changes is refused by name, with what it stays", async () => {
  const body = JSON.stringify({ spec: { cidr: "10.3.0.0/16" } });
  const answer = await raw(api.socketPath, "PATCH", `${base}/networks/lan`, {
    body,
    headers: { "content-type": "application/merge-patch+json" },
  });
  expect(answer).toMatchObject({
    status: 400,
    json: { fields: [{ path: "spec.cidr", allowed: '"10.1.0.0/16"' }] },
  });
});
