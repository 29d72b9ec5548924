import { expect, test } from "vitest";
import { testCertificate } from "../api/test-certificate.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { groupKind } from "../kinds/group.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { defaultCounts, projectKind } from "../kinds/project.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createImage, testServices } from "./testing.ts";

const project = "default";

async function start() {
  const { services } = await testServices();
  const { resources } = services;
  await createImage(services);
  const template = { type: "container", image: "debian" };
  await resources.create(system, instanceKind, { project, name: "web", spec: template });
  const create = (kind: unknown, name: string, spec: object) =>
    resources.create(system, kind as Kind, { project, name, spec });
  let lastPort = 1_000;
  return {
    resources,
    setQuota: (quota: object) =>
      resources.patch(system, projectKind, { name: project }, { spec: { quota: quota as never } }),
    group: (name: string) => create(groupKind, name, { template, min: 0, max: 0 }),
    publish: (name: string) => create(publishedPortKind, name, { port: ++lastPort, instance: "web" }),
    certificate: (name: string) => create(certificateKind, name, { own: own() }),
    balancer: (name: string, ports = 1) =>
      create(loadBalancerKind, name, { instances: ["web"], targetPort: 80, listeners: listeners(ports) }),
    listen: (name: string, ports: number) =>
      resources.patch(
        system,
        loadBalancerKind,
        { project, name },
        { spec: { listeners: listeners(ports) as never } },
      ),
  };

  function listeners(count: number) {
    return Array.from({ length: count }, () => ({ port: ++lastPort }));
  }
}

function own() {
  const { cert, key } = testCertificate();
  return { certificate: cert, privateKey: key };
}

test.each(["group", "certificate", "balancer", "publish"] as const)(
  "the bound on what `%s` makes holds under any race, and what is deleted makes room",
  async (verb) => {
    const made = await start();
    await made.setQuota({ groups: 3, certificates: 3, loadBalancers: 3, hostPorts: 3 });
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => made[verb](`n${i}`)));
    const there = results.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    expect(there).toHaveLength(3);
    for (const one of results) {
      if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "QuotaExceeded" });
    }
    const kinds: Kind[] = [groupKind, certificateKind, loadBalancerKind, publishedPortKind] as never;
    const kind = kinds.find(({ name }) => name === there[0]?.kind) as Kind;
    const ref = { project, name: there[0]?.metadata.name ?? "" };
    const left = await made.resources.delete(system, kind, ref);
    for (const finalizer of left?.metadata.finalizers ?? []) {
      await made.resources.removeFinalizer(system, kind, ref, left?.metadata.uid ?? "", finalizer);
    }
    await made[verb]("again");
    await expect(made[verb]("more")).rejects.toMatchObject({ code: "QuotaExceeded" });
  },
);

test("ports of published ports and of listeners count together; a balancer may exchange them", async () => {
  const { setQuota, balancer, publish, listen } = await start();
  await setQuota({ hostPorts: 4 });
  await publish("one");
  await balancer("front", 2);
  await expect(balancer("other", 2)).rejects.toThrow(
    /may have 4 ports of the host, has 3, and this asks for 2 more.*quota\.hostPorts/,
  );
  await listen("front", 3);
  await listen("front", 3);
  await expect(listen("front", 4)).rejects.toMatchObject({ code: "QuotaExceeded" });
  await expect(publish("two")).rejects.toMatchObject({ code: "QuotaExceeded" });
  await listen("front", 2);
  await publish("two");
});

test("a project without a quota has bounds, another project its own, and a quota may raise them", async () => {
  const { resources, group, setQuota } = await start();
  for (let i = 0; i < defaultCounts.groups; i++) await group(`g${i}`);
  await expect(group("more")).rejects.toThrow(/may have 200 groups, has 200/);
  await setQuota({ groups: defaultCounts.groups + 1 });
  await group("more");
  await resources.create(system, projectKind, { name: "shop" });
  const spec = { own: own() };
  const site = await resources.create(system, certificateKind, { project: "shop", name: "site", spec });
  expect(site.metadata.project).toBe("shop");
});
