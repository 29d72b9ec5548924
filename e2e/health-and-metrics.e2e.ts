/**
 * Health checks of all three types and what is measured, on real guests of three drivers: containers of LXC and Docker and a
 * virtual machine.
 */
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readExposition } from "../src/api/testing-exposition.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { TestEngine } from "./docker-engine.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const checks = {
  http: { type: "http", port: 80, intervalMs: 300, fall: 2 },
  tcp: { type: "tcp", port: 80, intervalMs: 300, fall: 2 },
  command: { type: "command", command: ["test", "-e", "/run/www/index.html"], intervalMs: 300, fall: 2 },
} as const;

let before: Snapshot;
let engine: TestEngine;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  engine = await TestEngine.start("/var/tmp/strata-e2e-engine");
  daemon = await TestDaemon.create({ STRATA_DOCKER_SOCKET: engine.socketPath });
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  const common = { image: "tiny", memoryMib: 128, diskMib: 128, services: [{ name: "http", port: 80 }] };
  const container = { ...common, type: "container" as const };
  const serve = "mkdir -p /run/www; hostname > /run/www/index.html; exec httpd -f -p 80 -h /run/www";
  const application = { command: ["/bin/sh", "-c", serve] };
  const specs: Record<string, Parameters<typeof daemon.client.create>[1]["spec"]> = {
    http: { ...container, healthCheck: checks.http as never },
    tcp: { ...container, healthCheck: checks.tcp as never },
    command: { ...container, healthCheck: checks.command as never },
    docker: { ...container, driver: "docker", application, healthCheck: checks.command as never },
    vm: { ...common, type: "vm", healthCheck: checks.http as never },
  };
  for (const [name, spec] of Object.entries(specs)) {
    await daemon.client.create(instanceKind, { project, name, spec });
  }
  for (const name of Object.keys(specs)) await becomes(name, "Healthy", 180_000);
}, 400_000);

afterAll(async () => {
  await daemon?.dispose().finally(() => engine.stop());
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const find = (name: string) => daemon.client.require(instanceKind, { project, name });
const ready = ({ status }: Instance) => status.conditions.find(({ type }) => type === "Ready");

async function becomes(name: string, reason: string, withinMs = 20_000): Promise<string> {
  let last: Instance | undefined;
  const done = async () => {
    last = await find(name);
    return ready(last)?.reason === reason;
  };
  await until(`${name} is ${reason}`, done, withinMs, 50).catch((error) => {
    throw new Error(`${error}: ${JSON.stringify(last?.status)}`);
  });
  return last ? (ready(last)?.message ?? "") : "";
}

async function inside(name: string, script: string): Promise<void> {
  await daemon.ok(["exec", "-p", project, name, "--", "sh", "-c", script], { timeoutMs: 60_000 });
}

const current = async (name: string) =>
  (await daemon.client.currentMetrics("instances", { project })).find((one) => one.name === name)?.values ??
  {};

describe("health", () => {
  it("http: a status that is no success, nobody there, and back", async () => {
    await inside("http", "mv /run/www/index.html /run/www/gone");
    expect(await becomes("http", "Unhealthy")).toMatch(/GET \/ on port 80 was answered with status 404$/);
    await inside("http", "killall httpd");
    await until(
      "the services are looked at again",
      async () => ready(await find("http"))?.reason === "ServicesNotReady",
      20_000,
    );
    await inside("http", "mv /run/www/gone /run/www/index.html; httpd -p 80 -h /run/www");
    await becomes("http", "Healthy");
  });

  it("tcp: whatever is answered is well, until nobody accepts", async () => {
    await inside("tcp", "rm /run/www/index.html; killall httpd");
    await until("it is not ready", async () => ready(await find("tcp"))?.status === "false", 20_000);
    await inside("tcp", "httpd -p 80 -h /run/www");
    await becomes("tcp", "Healthy");
  });

  it.each(["command", "docker"])("command inside: %s", async (name) => {
    await inside(name, "mv /run/www/index.html /run/www/gone");
    expect(await becomes(name, "Unhealthy")).toMatch(/test exited with 1/);
    expect((await find(name)).status.state).toBe("running");
    await inside(name, "mv /run/www/gone /run/www/index.html");
    await becomes(name, "Healthy");
  });

  it("a check that can be changed while the guest runs, and survives a restart of the daemon", async () => {
    const since = ready(await find("command"))?.since;
    await daemon.stop();
    await daemon.start();
    await inside("command", "true");
    expect(ready(await find("command"))).toMatchObject({ status: "true", since });
    const healthCheck = {
      type: "command",
      command: ["sh", "-c", "echo no such luck; exit 3"],
      intervalMs: 300,
    };
    await daemon.client.patch(instanceKind, { project, name: "command" }, { spec: { healthCheck } });
    expect(await becomes("command", "Unhealthy")).toMatch(/sh exited with 3: no such luck$/);
  });
});

describe("metrics", () => {
  it.each(["http", "docker", "vm"])("%s: CPU, memory, traffic and disks are measured", async (name) => {
    const address = addressOf(await find(name));
    const load = "(while :; do :; done) >/dev/null 2>&1 &";
    // The tiny machine has no agent that would run it.
    if (name !== "vm") await inside(name, load);
    const measured = async () => {
      await httpGet(`http://${address}/boot-id`);
      const { cpu = 0, received = 0, sent = 0 } = await current(name);
      return received > 0 && sent > 0 && cpu > (name === "vm" ? 0 : 5);
    };
    await until(`${name} is measured`, measured, 60_000, 200).catch(async (error) => {
      throw new Error(`${error}: ${JSON.stringify(await current(name))}`);
    });
    const values = await current(name);
    expect(values.cpu).toBeLessThan(250);
    expect(values.memory).toBeGreaterThan(name === "vm" ? 32 : 0.2);
    expect(values["memory-percent"]).toBeGreaterThan(0);
    // Of containers, kernels with version 1 of control groups may not know.
    if (name === "vm") expect(values).toMatchObject({ "disk-read": expect.any(Number) });
  });

  it("the host and the exposition", async () => {
    const [host] = await daemon.client.currentMetrics("hosts", {});
    expect(host?.values).toMatchObject({ "memory-percent": expect.any(Number), load: expect.any(Number) });
    const samples = readExposition(await exposition());
    const vm = samples.find(
      ({ name, labels }) => name === "strata_instance_cpu_percent" && labels.instance === "vm",
    );
    expect(vm?.labels).toMatchObject({ project, uid: (await find("vm")).metadata.uid });
    expect(samples.some(({ name }) => name === "strata_host_cpu_percent")).toBe(true);
  });

  it("they survive a kill of the daemon", async () => {
    const ref = { project, name: "http" };
    const count = async () =>
      (await daemon.client.metricSeries({ kind: "instances", ref, metric: "memory", stepSeconds: 1 })).points
        .length;
    const had = await count();
    expect(had).toBeGreaterThan(2);
    await daemon.kill();
    await daemon.start();
    expect(await count()).toBeGreaterThanOrEqual(had - 1);
  });
});

async function exposition(): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath: daemon.settings.socketPath, path: "/metrics" }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
    })
      .on("error", reject)
      .end();
  });
}
