import { expect, test } from "vitest";
import type { FieldError } from "../core/errors.ts";
import { addressKind } from "../kinds/address.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { networkKind } from "../kinds/network.ts";
import { maxCards, networkInterfaceKind } from "../kinds/network-interface.ts";
import { type Peering, peeringKind } from "../kinds/peering.ts";
import { projectKind } from "../kinds/project.ts";
import { maxPublishedPorts, publishedPortKind } from "../kinds/published-port.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { securityGroupKind } from "../kinds/security-group.ts";
import { maxSubnets, type Subnet, subnetKind } from "../kinds/subnet.ts";
import { systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { createImage, testServices } from "./testing.ts";

/** Short forms: everything in the project `default` unless said otherwise. */
function verbs(services: Services, project = "default") {
  const { resources } = services;
  const ref = (name: string) => ({ project, name });
  return {
    create: <S, T>(kind: Kind<S, T>, name: string, spec: object = {}): Promise<Resource<S, T>> =>
      resources.create(system, kind, { project, name, spec }),
    patch: <S, T>(kind: Kind<S, T>, name: string, spec: object): Promise<Resource<S, T>> =>
      resources.patch(system, kind, ref(name), { spec: spec as never }),
    delete: <S, T>(kind: Kind<S, T>, name: string) => resources.delete(system, kind, ref(name)),
    get: <S, T>(kind: Kind<S, T>, name: string) => resources.get(system, kind, ref(name)),
    status: <S, T>(kind: Kind<S, T>, { metadata }: Resource, patch: object) =>
      resources.patchStatus(system, kind, ref(metadata.name), metadata.uid, patch as never),
  };
}

async function start() {
  const { services, store, clock } = await testServices();
  await createImage(services);
  return { services, store, clock, ...verbs(services) };
}

const container = { type: "container", image: "debian" };
const custom = (cidr: string) => ({ cidr, subnets: "custom" });

test("a project comes with a network, its subnet and a group whose members may talk to one another", async () => {
  const { services } = await start();
  await services.resources.create(system, projectKind, { name: "shop" });
  const { get } = verbs(services, "shop");
  const network = await get(networkKind, "default");
  const subnet = await get(subnetKind, "default");
  expect(network?.status).toMatchObject({ domain: "shop.internal", hostRoute: true });
  const { cidr = "", ipv6Cidr = "" } = network?.status ?? {};
  expect(subnet?.spec).toEqual({ network: "default", cidr });
  expect(subnet?.status).toEqual({
    index: 0,
    gateway: cidr.replace(/0\/24$/, "1"),
    ipv6Cidr: ipv6Cidr.replace("/48", "/64"),
    ipv6Gateway: ipv6Cidr.replace("/48", "1"),
  });
  expect(subnet?.metadata.owner?.uid).toBe(network?.metadata.uid);
  expect((await get(securityGroupKind, "default"))?.spec).toMatchObject({
    ingress: [{ protocol: "any", group: "default" }],
    egress: [{ cidr: "0.0.0.0/0" }, { cidr: "::/0" }],
  });
});

test("a project without the group, from before there were any, gets it", async () => {
  const { services, store, get } = await start();
  await store.commit([{ delete: "/security-groups/default/default" }]);
  await services.ensureDefaults();
  await services.ensureDefaults();
  expect(await get(securityGroupKind, "default")).toBeDefined();
});

test("networks may have the same range, and a card has its subnet's addresses", async () => {
  const { create } = await start();
  for (const name of ["one", "two"]) {
    await create(networkKind, name, { cidr: "10.0.0.0/16", ipv6Cidr: "fd00:5::/48" });
    const web = await create(instanceKind, `web-${name}`, { ...container, network: name });
    expect(web.status.nic).toMatchObject({
      network: name,
      subnet: name,
      ipAddress: "10.0.0.2",
      ipv6Address: expect.stringMatching(/^fd00:5::[0-9a-f]{1,2}:aff:fe00:2$/),
    });
    const fixed = { ...container, network: name, ipAddress: "10.0.9.9", ipv6Address: "fd00:5::99" };
    expect((await create(instanceKind, `fixed-${name}`, fixed)).status.nic).toMatchObject({
      ipAddress: "10.0.9.9",
      ipv6Address: "fd00:5::99",
    });
  }
});

test("subnets created at once do not overlap, and their bridges are never reused", async () => {
  const { create, delete: remove, services } = await start();
  await create(networkKind, "lan", custom("10.1.0.0/16"));
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, (_, i) =>
      create(subnetKind, `s${i}`, { network: "lan", cidr: `10.1.${Math.floor(i / 3)}.0/24` }),
    ),
  );
  const made = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  expect(new Set(made.map((subnet) => subnet.spec.cidr)).size).toBe(10);
  expect(made.map((subnet) => subnet.status.index).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(new Set(made.map((subnet) => subnet.status.ipv6Cidr)).size).toBe(10);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "Conflict" });
  }
  const last = made.find((subnet) => subnet.status.index === 9) as Subnet;
  await remove(subnetKind, last.metadata.name);
  const next = await create(subnetKind, "next", { network: "lan", cidr: last.spec.cidr });
  expect(next.status.index).toBe(10);
  expect(next.status.ipv6Cidr).not.toBe(last.status.ipv6Cidr);
  await expect(remove(networkKind, "lan")).rejects.toThrow(/subnet "next"/);
  for (const { metadata } of made.filter((subnet) => subnet !== last))
    await remove(subnetKind, metadata.name);
  await remove(subnetKind, "next");
  expect((await remove(networkKind, "lan"))?.metadata.deletedAt).toBeDefined();
  expect(services).toBeDefined();
});

test("a network has a bounded number of subnets", async () => {
  const { create } = await start();
  await create(networkKind, "lan", custom("10.1.0.0/16"));
  for (let i = 0; i < maxSubnets; i++)
    await create(subnetKind, `s${i}`, { network: "lan", cidr: `10.1.${i}.0/24` });
  await expect(create(subnetKind, "more", { network: "lan", cidr: "10.1.200.0/24" })).rejects.toMatchObject({
    code: "Conflict",
    fields: [{ allowed: "at most 64 in one network" }],
  });
});

test("a card in a subnet that is being deleted at the same moment: only one of both happens", async () => {
  const { create, delete: remove, get } = await start();
  await create(networkKind, "lan", custom("10.1.0.0/16"));
  for (let round = 0; round < 20; round++) {
    await create(subnetKind, "a", { network: "lan", cidr: "10.1.0.0/24" });
    const [made, gone] = await Promise.allSettled([
      create(instanceKind, "web", { ...container, network: "lan", subnet: "a" }),
      remove(subnetKind, "a"),
    ]);
    expect([made.status, gone.status].sort()).toEqual(["fulfilled", "rejected"]);
    if (made.status === "fulfilled") await remove(instanceKind, "web");
    if (gone.status === "rejected") await remove(subnetKind, "a");
    expect(await get(subnetKind, "a")).toBeUndefined();
  }
});

test("a group stays while a card or a rule has it, and what names it learns of its end", async () => {
  const { create, patch, delete: remove } = await start();
  await create(securityGroupKind, "self", { ingress: [{ protocol: "any", group: "self" }] });
  await create(securityGroupKind, "web");
  await create(securityGroupKind, "db", { ingress: [{ protocol: "any", group: "web" }] });
  await create(instanceKind, "web", { ...container, securityGroups: ["self", "db"] });
  await expect(remove(securityGroupKind, "web")).rejects.toThrow('a rule of security group "db"');
  await expect(remove(securityGroupKind, "self")).rejects.toThrow('instance "web"');
  await patch(securityGroupKind, "db", { ingress: [] });
  await remove(securityGroupKind, "web");
  await expect(patch(instanceKind, "web", { securityGroups: ["web"] })).rejects.toMatchObject({
    fields: [{ path: "spec.securityGroups[0]", allowed: "db, default, self" }],
  });
  await patch(instanceKind, "web", { securityGroups: ["default"] });
  await remove(securityGroupKind, "self");
  await create(securityGroupKind, "a");
  await create(securityGroupKind, "b");
  const [rule, gone] = await Promise.allSettled([
    patch(securityGroupKind, "a", { ingress: [{ protocol: "any", group: "b" }] }),
    remove(securityGroupKind, "b"),
  ]);
  expect([rule.status, gone.status].sort()).toEqual(["fulfilled", "rejected"]);
});

test("a thousand rules that name hundreds of groups are one commit", async () => {
  const { create } = await start();
  const names = Array.from({ length: 200 }, (_, i) => `g${i}`);
  for (const name of names) await create(securityGroupKind, name);
  const ingress = Array.from({ length: 1000 }, (_, i) => ({
    protocol: "tcp",
    ports: i + 1,
    group: names[i % 200],
  }));
  await create(securityGroupKind, "all", { ingress });
  const wrong = ingress.map((rule) => ({ ...rule, group: `x${rule.ports}` }));
  const error = await create(securityGroupKind, "wrong", { ingress: wrong }).catch((thrown) => thrown);
  expect((error as { fields: FieldError[] }).fields).toHaveLength(5);
});

test("within a project one peering joins two networks at once, and keeps what routes by it", async () => {
  const { create, delete: remove } = await start();
  await create(networkKind, "a", custom("10.1.0.0/16"));
  await create(networkKind, "b", custom("10.2.0.0/16"));
  const peering = await create(peeringKind, "ab", { network: "a", peerNetwork: "b" });
  expect(peering.status).toEqual({ state: "active", message: "" });
  const routes = [{ destination: "10.1.0.0/16", target: "peering", via: "ab" }];
  await create(routeTableKind, "b-routes", { network: "b", routes });
  await create(subnetKind, "b1", { network: "b", cidr: "10.2.0.0/24", routeTable: "b-routes" });
  await expect(remove(routeTableKind, "b-routes")).rejects.toThrow('subnet "b1" uses it');
  await expect(remove(peeringKind, "ab")).rejects.toThrow('route table "b-routes" uses it');
  await expect(remove(networkKind, "a")).rejects.toThrow('peering "ab"');
  await remove(subnetKind, "b1");
  await remove(routeTableKind, "b-routes");
  await remove(peeringKind, "ab");
  await create(peeringKind, "ba", { network: "b", peerNetwork: "a" });
});

test("a table leads to a hundred peerings, and none of them goes at the same moment", async () => {
  const { create, patch, delete: remove } = await start();
  await create(networkKind, "hub", custom("10.0.0.0/16"));
  for (let i = 1; i <= 100; i++) {
    await create(networkKind, `n${i}`, custom(`10.${i}.0.0/16`));
    await create(peeringKind, `p${i}`, { network: "hub", peerNetwork: `n${i}` });
  }
  const routes = Array.from({ length: 100 }, (_, i) => {
    return { destination: `10.${i + 1}.0.0/16`, target: "peering", via: `p${i + 1}` };
  });
  await create(routeTableKind, "all", { network: "hub", routes });
  await patch(routeTableKind, "all", { routes: routes.slice(1) });
  const [named, gone] = await Promise.allSettled([
    patch(routeTableKind, "all", { routes }),
    remove(peeringKind, "p1"),
  ]);
  expect([named.status, gone.status].sort()).toEqual(["fulfilled", "rejected"]);
});

test("between projects a peering waits for the other side, and neither learns of the other's networks", async () => {
  const { services } = await start();
  for (const name of ["left", "right"]) await services.resources.create(system, projectKind, { name });
  const [left, right] = [verbs(services, "left"), verbs(services, "right")];
  await left.create(networkKind, "lan", custom("10.1.0.0/16"));
  await right.create(networkKind, "lan", custom("10.2.0.0/16"));
  await right.create(networkKind, "twin", custom("10.1.0.0/16"));
  const to = (peerProject: string, peerNetwork = "lan") => ({ network: "lan", peerProject, peerNetwork });
  const waits = await left.create(peeringKind, "to-right", to("right"));
  const nowhere = await left.create(peeringKind, "to-nowhere", to("nowhere", "secret"));
  const overlapping = await left.create(peeringKind, "to-twin", to("right", "twin"));
  for (const { status, spec } of [waits, nowhere, overlapping]) {
    expect(status.state).toBe("waiting");
    expect(status.message).toBe(
      `waiting for project "${spec.peerProject}" to create a peering of its network "${spec.peerNetwork}" with ` +
        'network "lan" of project "left"',
    );
  }
  const other = await right.create(peeringKind, "to-left", to("left"));
  expect(other.status.state).toBe("active");
  const joined = (await left.get(peeringKind, "to-right")) as Peering;
  expect(joined.status).toEqual({ state: "active", message: "" });
  expect(joined.metadata.revision).toBe(other.metadata.revision);
  await expect(
    right.create(peeringKind, "twin-left", { ...to("left"), network: "twin" }),
  ).rejects.toMatchObject({ code: "Conflict", fields: [{ path: "spec.peerNetwork" }] });
  await right.delete(peeringKind, "to-left");
  expect((await left.get(peeringKind, "to-right"))?.status.state).toBe("waiting");
  expect((await right.create(peeringKind, "again", to("left"))).status.state).toBe("active");
  await services.resources.delete(system, projectKind, { name: "right" }, { cascade: true });
  expect((await left.get(peeringKind, "to-right"))?.status.state).toBe("waiting");
});

test("two sides created at the same moment find one another", async () => {
  const { services } = await start();
  for (const name of ["left", "right"]) await services.resources.create(system, projectKind, { name });
  const sides = [verbs(services, "left"), verbs(services, "right")] as const;
  await sides[0].create(networkKind, "lan", custom("10.1.0.0/16"));
  await sides[1].create(networkKind, "lan", custom("10.2.0.0/16"));
  await Promise.all([
    sides[0].create(peeringKind, "p", { network: "lan", peerProject: "right", peerNetwork: "lan" }),
    sides[1].create(peeringKind, "p", { network: "lan", peerProject: "left", peerNetwork: "lan" }),
  ]);
  for (const side of sides) expect((await side.get(peeringKind, "p"))?.status.state).toBe("active");
});

test("of two peers with one range, created at the same moment, one is refused", async () => {
  const { create } = await start();
  await create(networkKind, "hub", custom("10.1.0.0/16"));
  await create(networkKind, "a", custom("10.2.0.0/16"));
  await create(networkKind, "b", custom("10.2.0.0/16"));
  const results = await Promise.allSettled([
    create(peeringKind, "hub-a", { network: "hub", peerNetwork: "a" }),
    create(peeringKind, "b-hub", { network: "b", peerNetwork: "hub" }),
  ]);
  expect(results.map((result) => result.status).sort()).toEqual(["fulfilled", "rejected"]);
});

test("an interface keeps its addresses from instance to instance, and stays while it is plugged in", async () => {
  const { create, patch, delete: remove, status, get } = await start();
  await create(networkKind, "lan", custom("10.1.0.0/16"));
  await create(subnetKind, "a", { network: "lan", cidr: "10.1.0.0/24" });
  for (const name of ["one", "two"]) await create(instanceKind, name, container);
  const card = await create(networkInterfaceKind, "eth", { network: "lan", instance: "one" });
  expect(card.status).toMatchObject({ state: "available", subnet: "a", ipAddress: "10.1.0.2" });
  const moved = await patch(networkInterfaceKind, "eth", { instance: "two" });
  expect(moved.status).toEqual(card.status);
  await expect(remove(networkInterfaceKind, "eth")).rejects.toThrow("detach it first");
  await expect(remove(subnetKind, "a")).rejects.toThrow('network interface "eth"');
  await status(networkInterfaceKind, moved, { state: "attached", instance: "two", host: "alpha" });
  await patch(networkInterfaceKind, "eth", { instance: null });
  await expect(remove(networkInterfaceKind, "eth")).rejects.toThrow(
    'still being detached from instance "two"',
  );
  await remove(instanceKind, "two");
  await remove(networkInterfaceKind, "eth");
  await remove(subnetKind, "a");
  expect(await get(networkInterfaceKind, "eth")).toBeUndefined();
});

test("an instance has a bounded number of cards, whoever plugs them in at once", async () => {
  const { create } = await start();
  await create(instanceKind, "web", container);
  const results = await Promise.allSettled(
    Array.from({ length: maxCards + 4 }, (_, i) =>
      create(networkInterfaceKind, `eth${i}`, { network: "default", instance: "web" }),
    ),
  );
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(maxCards - 1);
});

test("addresses come from the pool, each once, and move from instance to instance", async () => {
  const { services } = await testServices({ addressPool: "192.0.2.0/29" });
  await createImage(services);
  const { create, patch, delete: remove } = verbs(services);
  for (const name of ["one", "two"]) await create(instanceKind, name, container);
  const made = await Promise.all(Array.from({ length: 6 }, (_, i) => create(addressKind, `a${i}`)));
  expect(new Set(made.map((address) => address.status.ipAddress)).size).toBe(6);
  await expect(create(addressKind, "more")).rejects.toMatchObject({ code: "CapacityExceeded" });
  await remove(addressKind, "a3");
  const fixed = await create(addressKind, "fixed", { ipAddress: made[3]?.status.ipAddress, instance: "one" });
  expect(fixed.status).toMatchObject({ state: "binding", ipAddress: made[3]?.status.ipAddress });
  await patch(addressKind, "fixed", { instance: "two" });
  await patch(addressKind, "a0", { instance: "one" });
  await expect(patch(addressKind, "a1", { instance: "one" })).rejects.toThrow('address "a0" already');
});

test("a published port is one in the whole cluster, and whose it is concerns its project only", async () => {
  const { services } = await testServices({ reservedPorts: () => [7443] });
  await services.resources.create(system, projectKind, { name: "shop" });
  for (const project of ["default", "shop"]) {
    await createImage(services, "debian", project);
    await verbs(services, project).create(instanceKind, "web", container);
  }
  const [here, there] = [verbs(services), verbs(services, "shop")];
  await here.create(publishedPortKind, "http", { port: 80, instance: "web" });
  await here.create(publishedPortKind, "dns", { port: 80, protocol: "udp", instance: "web" });
  await expect(here.create(publishedPortKind, "again", { port: 80, instance: "web" })).rejects.toThrow(
    'published port "http" has already',
  );
  const error = await there
    .create(publishedPortKind, "http", { port: 80, instance: "web" })
    .catch((thrown) => thrown);
  expect(error.message).toContain("another project has already");
  expect(JSON.stringify([error.message, error.fields])).not.toMatch(/default|"http" has/);
  await expect(here.create(publishedPortKind, "api", { port: 7443, instance: "web" })).rejects.toThrow(
    "this host itself answers on",
  );
  await here.delete(publishedPortKind, "http");
  await there.create(publishedPortKind, "http", { port: 80, instance: "web" });
});

test("an instance takes its published ports with it, and leaves its cards and addresses", async () => {
  const { create, delete: remove, get, status, store } = await start();
  const web = await create(instanceKind, "web", container);
  await create(instanceKind, "other", container);
  for (let i = 1; i < maxCards; i++)
    await create(networkInterfaceKind, `eth${i}`, { network: "default", instance: "web" });
  const card = await create(networkInterfaceKind, "theirs", { network: "default", instance: "other" });
  await create(addressKind, "front", { instance: "web" });
  for (let port = 1; port <= maxPublishedPorts; port++) {
    await create(publishedPortKind, `p${port}`, { port, instance: "web" });
  }
  await create(publishedPortKind, "theirs", { port: 99, instance: "other" });
  await expect(create(publishedPortKind, "more", { port: 1000, instance: "web" })).rejects.toMatchObject({
    code: "Conflict",
    fields: [{ path: "spec.instance" }],
  });
  await status(instanceKind, web, { host: "alpha" });
  expect((await remove(instanceKind, "web"))?.metadata.finalizers).toEqual(["agent"]);
  expect((await get(networkInterfaceKind, "eth1"))?.spec).not.toHaveProperty("instance");
  expect((await get(networkInterfaceKind, "eth1"))?.metadata.generation).toBe(2);
  expect((await get(addressKind, "front"))?.spec).toEqual({});
  expect(await get(publishedPortKind, "p1")).toBeUndefined();
  expect((await get(networkInterfaceKind, "theirs"))?.metadata.revision).toBe(card.metadata.revision);
  expect(await get(publishedPortKind, "theirs")).toBeDefined();
  const claims = await store.list("/allocations/ports/", { limit: 100 });
  expect(claims.entries.map((entry) => entry.key)).toEqual(["/allocations/ports/tcp/99"]);
});

test("nothing is left of a project with everything in it", async () => {
  const { services, store, clock } = await start();
  const before = (await store.list("/", { limit: 1000 })).entries.map((entry) => entry.key);
  await services.resources.create(system, projectKind, { name: "shop" });
  await createImage(services, "debian", "shop");
  const { create } = verbs(services, "shop");
  await create(networkKind, "a", custom("10.1.0.0/16"));
  await create(networkKind, "b", { cidr: "10.2.0.0/16", hostRoute: true });
  await create(peeringKind, "ab", { network: "a", peerNetwork: "b" });
  await create(peeringKind, "out", { network: "a", peerNetwork: "lan", peerProject: "left" });
  const routes = [{ destination: "10.2.0.0/16", target: "peering", via: "ab" }];
  await create(routeTableKind, "r", { network: "a", routes });
  await create(subnetKind, "a1", { network: "a", cidr: "10.1.0.0/24", routeTable: "r" });
  await create(securityGroupKind, "web", { ingress: [{ protocol: "any", group: "default" }] });
  await create(instanceKind, "web", { ...container, network: "a", securityGroups: ["web"] });
  await create(networkInterfaceKind, "eth", { network: "b", instance: "web" });
  await create(addressKind, "front", { instance: "web" });
  await create(publishedPortKind, "http", { port: 80, instance: "web" });
  const { resources } = services;
  const shop = await resources.delete(system, projectKind, { name: "shop" }, { cascade: true });
  for (const name of ["default", "a", "b"]) {
    const ref = { project: "shop", name };
    const { metadata } = await resources.require(system, networkKind, ref);
    await resources.removeFinalizer(system, networkKind, ref, metadata.uid, "agent");
  }
  await resources.removeFinalizer(
    system,
    projectKind,
    { name: "shop" },
    shop?.metadata.uid ?? "",
    "contents",
  );
  await clock.advance(11 * 60_000);
  await services.prune();
  const after = (await store.list("/", { limit: 1000 })).entries.map((entry) => entry.key);
  expect(after.filter((key) => !before.includes(key))).toEqual(["/closing/shop"]);
});
