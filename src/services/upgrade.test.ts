import { expect, test } from "vitest";
import type { Json } from "../core/json.ts";
import { instanceKind } from "../kinds/instance.ts";
import { networkKind } from "../kinds/network.ts";
import { subnetKind } from "../kinds/subnet.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createImage, testServices } from "./testing.ts";

test("a network and an instance from before there were subnets go on with their addresses", async () => {
  const { services, store } = await testServices();
  await createImage(services);
  const { resources } = services;
  const ref = { project: "default", name: "web" };
  const spec = { type: "container", image: "debian" };
  const created = await resources.create(system, instanceKind, { ...ref, spec });
  const network = await resources.require(system, networkKind, { project: "default", name: "default" });
  // As it was: no subnet, no IPv6, a gateway of the network, addresses under another prefix.
  const { securityGroups: _groups, metadata: _metadata, ...oldSpec } = created.spec;
  const { ipv6Address: _ipv6, subnet: _subnet, ...nic } = created.status.nic ?? {};
  const { ipv6Cidr: _cidr, hostRoute: _route, hostAddresses: _addresses, ...oldStatus } = network.status;
  const stored = (resource: object) =>
    ({ ...resource, metadata: { ...created.metadata, revision: 0 } }) as unknown as Json;
  const cards = await store.list("/allocations/cards/", { limit: 10 });
  await store.commit([
    {
      put: "/instances/default/web",
      value: stored({ ...created, spec: oldSpec, status: { ...created.status, nic } }),
    },
    {
      put: "/networks/default/default",
      value: { ...network, spec: {}, status: { ...oldStatus, gateway: "10.77.0.1" } } as unknown as Json,
    },
    { delete: "/subnets/default/default" },
    {
      put: `/addresses/${network.metadata.uid}/0a4d0002`,
      value: { instance: "web", project: "default", uid: "x" },
    },
    ...cards.entries.map(({ key }) => ({ delete: key })),
  ]);
  await services.ensureDefaults();
  const before = await store.revision();
  await services.ensureDefaults();
  expect(await store.revision()).toBe(before);
  const web = await resources.require(system, instanceKind, ref);
  const lan = await resources.require(system, networkKind, { project: "default", name: "default" });
  const subnet = await resources.require(system, subnetKind, { project: "default", name: "default" });
  expect(lan.status).toEqual({ ...network.status, ipv6Cidr: lan.status.ipv6Cidr });
  expect(lan.spec).toEqual({ subnets: "auto", internet: true });
  expect(subnet.status).toMatchObject({ gateway: "10.77.0.1", index: 0 });
  expect(web.spec).toEqual(created.spec);
  expect(web.status.nic).toMatchObject({ ...nic, subnet: "default" });
  expect(web.status.nic?.ipv6Address?.startsWith(lan.status.ipv6Cidr?.replace("::/48", ":") ?? "?")).toBe(
    true,
  );
  expect((await store.list("/addresses/", { limit: 10 })).entries).toEqual([]);
  await expect(
    resources.create(system, instanceKind, {
      ...ref,
      name: "other",
      spec: { ...spec, ipAddress: "10.77.0.2" },
    }),
  ).rejects.toThrow('instance "web" has');
  await resources.delete(system, instanceKind, ref);
  expect((await store.list("/allocations/cards/", { limit: 10 })).entries).toEqual([]);
});
