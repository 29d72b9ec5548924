import { expect, test } from "vitest";
import { testCertificate } from "../api/test-certificate.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { instanceKind } from "../kinds/instance.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import { type Principal, systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { createImage, testServices } from "./testing.ts";

const project = "default";

async function withInstance(options = {}) {
  const made = await testServices(options);
  await createImage(made.services);
  const spec = { type: "container", image: "debian" };
  await made.services.resources.create(system, instanceKind, { project, name: "web", spec });
  return made;
}

function createBalancer({ resources }: Services, name: string, spec: object) {
  const draft = { project, name, spec: { instances: ["web"], targetPort: 80, ...spec } };
  return resources.create(system, loadBalancerKind, draft);
}

const own = () => {
  const { cert, key } = testCertificate();
  return { certificate: cert, privateKey: key };
};

function createCertificate({ resources }: Services, name: string, spec: object = { own: own() }) {
  return resources.create(system, certificateKind, { project, name, spec });
}

test("ports are claimed beside published ones, moved with an update and freed with the balancer", async () => {
  const { services, store } = await withInstance({ reservedPorts: () => [22] });
  const { resources } = services;
  await createBalancer(services, "front", { listeners: [{ port: 80 }, { port: 81 }] });
  const publish = (port: number) =>
    resources.create(system, publishedPortKind, {
      project,
      name: `p${port}`,
      spec: { port, instance: "web" },
    });
  await expect(publish(80)).rejects.toMatchObject({
    code: "Conflict",
    fields: [{ path: "spec.port", message: expect.stringContaining('load balancer "front" has already') }],
  });
  await publish(90);
  await expect(createBalancer(services, "other", { listeners: [{ port: 90 }] })).rejects.toMatchObject({
    fields: [{ path: "spec.listeners[0].port", message: expect.stringContaining('published port "p90"') }],
  });
  await expect(createBalancer(services, "ssh", { listeners: [{ port: 22 }] })).rejects.toMatchObject({
    fields: [{ message: expect.stringContaining("this host itself") }],
  });
  const ref = { project, name: "front" };
  await resources.patch(system, loadBalancerKind, ref, { spec: { listeners: [{ port: 81 }, { port: 82 }] } });
  await publish(80);
  await expect(publish(82)).rejects.toMatchObject({ code: "Conflict" });
  await resources.delete(system, loadBalancerKind, ref);
  expect((await store.list("/allocations/ports/tcp/8", { limit: 10 })).entries.map(({ key }) => key)).toEqual(
    ["/allocations/ports/tcp/80"],
  );
});

test("a port stays taken until the host has let go of it", async () => {
  const { services } = await withInstance();
  const { resources } = services;
  const { metadata } = await createBalancer(services, "front", { listeners: [{ port: 80 }] });
  const ref = { project, name: "front" };
  await resources.patchStatus(system, loadBalancerKind, ref, metadata.uid, { host: "alpha" });
  await resources.delete(system, loadBalancerKind, ref);
  await expect(createBalancer(services, "next", { listeners: [{ port: 80 }] })).rejects.toMatchObject({
    code: "Conflict",
  });
  await resources.removeFinalizer(system, loadBalancerKind, ref, metadata.uid, "agent");
  await createBalancer(services, "next", { listeners: [{ port: 80 }] });
});

test("what a balancer names must exist, and a certificate stays while it is named", async () => {
  const { services } = await withInstance();
  const { resources } = services;
  const https = { port: 443, protocol: "https", certificates: ["site"] };
  await expect(createBalancer(services, "front", { listeners: [https] })).rejects.toMatchObject({
    fields: [{ path: "spec.listeners[0].certificates[0]" }],
  });
  await expect(
    createBalancer(services, "front", { listeners: [{ port: 80 }], instances: undefined, group: "webs" }),
  ).rejects.toMatchObject({ fields: [{ path: "spec.group" }] });
  await createCertificate(services, "site");
  await createBalancer(services, "front", { listeners: [https] });
  const site = { project, name: "site" };
  await expect(resources.delete(system, certificateKind, site)).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining('load balancer "front" uses it'),
  });
  await resources.patch(
    system,
    loadBalancerKind,
    { project, name: "front" },
    { spec: { listeners: [{ port: 80 }] } },
  );
  await resources.delete(system, certificateKind, site);
});

test("private keys are given to operators of the host alone", async () => {
  const { services } = await testServices();
  const { resources } = services;
  const spec = { own: own() };
  const secret = spec.own.privateKey.split("\n")[1] ?? "";
  const ref = { project, name: "site" };
  const shown = [
    await createCertificate(services, "site", spec),
    await resources.get(system, certificateKind, ref),
    await resources.list(system, certificateKind, { project }),
    await resources.patch(system, certificateKind, ref, { labels: { a: "b" } }),
  ];
  for (const one of shown) expect(JSON.stringify(one)).not.toContain(secret);
  const again = await resources.apply(system, certificateKind, { ...ref, labels: { a: "b" }, spec });
  expect(again.resource.metadata.generation).toBe(1);
  expect(await services.certificateMaterial(system, ref)).toEqual({
    chain: spec.own.certificate,
    privateKey: spec.own.privateKey,
  });
  const member: Principal = { name: "m", role: "admin", project };
  await expect(services.certificateMaterial(member, ref)).rejects.toMatchObject({ code: "Forbidden" });
});

test.each<[string, () => object, string, string]>([
  ["no X.509", () => ({ ...own(), certificate: pem("CERTIFICATE") }), "certificate", "cannot be read"],
  ["no certificate", () => ({ ...own(), certificate: pem("NOTHING") }), "certificate", "has no certificate"],
  ["no key", () => ({ ...own(), privateKey: pem("PRIVATE KEY") }), "privateKey", "cannot be read"],
  ["another's key", () => ({ ...own(), privateKey: own().privateKey }), "privateKey", "does not belong"],
  [
    "a chain in disorder",
    () => {
      const [first, second] = [own(), own()];
      return { ...first, certificate: first.certificate + second.certificate };
    },
    "certificate",
    "where the issuer",
  ],
])("a certificate of one's own: %s", async (_name, spec, field, message) => {
  const { services } = await testServices();
  await expect(createCertificate(services, "site", { own: spec() })).rejects.toMatchObject({
    code: "Invalid",
    fields: [{ path: `spec.own.${field}`, message: expect.stringContaining(message) }],
  });
});

test("a certificate that has ended is refused", async () => {
  const { services, clock } = await testServices();
  await clock.advance(28 * 365 * 86_400_000);
  await expect(createCertificate(services, "site")).rejects.toMatchObject({
    fields: [{ message: expect.stringContaining("expired at 2049") }],
  });
});

function pem(label: string): string {
  return `-----BEGIN ${label}-----\nAAAA\n-----END ${label}-----\n`;
}
