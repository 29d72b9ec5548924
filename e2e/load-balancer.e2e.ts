/**
 * Load balancers on real containers: HAProxy in front of guests whose host names tell who answered. Clients are this
 * process, on loopback; so is the authority that certificates come from.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { certificateKind } from "../src/kinds/certificate.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { loadBalancerKind } from "../src/kinds/load-balancer.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const port = 18_080;
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  for (const name of ["one", "two"]) await createInstance(name);
  await until("both serve", async () => (await readyNames()).length === 2, 60_000);
}, 200_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

async function createInstance(name: string, network = "default"): Promise<void> {
  const spec = {
    type: "container" as const,
    image: "tiny",
    memoryMib: 64,
    diskMib: 128,
    network,
    services: [{ name: "http", port: 80 }],
  };
  await daemon.client.create(instanceKind, { project, name, spec });
}

async function readyNames(): Promise<string[]> {
  const ready = (await daemon.instances(project)).filter(({ status }) =>
    status.conditions.some((one) => one.type === "Ready" && one.status === "true"),
  );
  return ready.map(({ metadata }) => metadata.name);
}

async function balancer(name: string) {
  return await daemon.client.require(loadBalancerKind, { project, name });
}

async function untilServers(name: string, states: Record<string, string>): Promise<void> {
  const wanted = JSON.stringify(Object.entries(states).sort());
  await until(
    `the servers of ${name} are ${wanted}`,
    async () => {
      const { status } = await balancer(name);
      const seen = status.targets.map((target) => [target.name, status.servers[target.uid]?.state]);
      // Others that it told of are gone from HAProxy once they are gone from here.
      const current = Object.keys(status.servers).length === seen.length;
      return current && status.state === "active" && JSON.stringify(seen.sort()) === wanted;
    },
    20_000,
  );
}

/** Who answers, in order of appearance, of so many requests. */
async function answerers(count: number, url = `http://127.0.0.1:${port}/`): Promise<string[]> {
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    const { status, text } = await httpGet(url);
    expect(status).toBe(200);
    seen.add(text.trim().split(".", 1)[0] ?? "");
  }
  return [...seen].sort();
}

describe("a balancer of named instances", () => {
  beforeAll(async () => {
    await daemon.client.create(loadBalancerKind, {
      project,
      name: "front",
      spec: { listeners: [{ port }], instances: ["one", "two"], targetPort: 80 },
    });
    await untilServers("front", { one: "up", two: "up" });
  }, 30_000);

  it("spreads requests", async () => {
    expect(await answerers(10)).toEqual(["one", "two"]);
  });

  it("follows a change of its instances without a reload", async () => {
    const ref = { project, name: "front" };
    await daemon.client.patch(loadBalancerKind, ref, { spec: { instances: ["two"] } });
    await untilServers("front", { two: "up" });
    expect(await answerers(6)).toEqual(["two"]);
    await daemon.client.patch(loadBalancerKind, ref, { spec: { instances: ["one", "two"] } });
    await untilServers("front", { one: "up", two: "up" });
    expect(await answerers(6)).toEqual(["one", "two"]);
  });

  it("has its port for itself", async () => {
    const again = { listeners: [{ port }], instances: ["one"], targetPort: 80 };
    await expect(
      daemon.client.create(loadBalancerKind, { project, name: "again", spec: again }),
    ).rejects.toMatchObject({ code: "Conflict" });
    await expect(
      daemon.client.create(certificateKind, {
        project,
        name: "bad",
        spec: {
          own: {
            certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            privateKey: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
          },
        },
      }),
    ).rejects.toMatchObject({ code: "Invalid" });
  });
});
