/**
 * What a load balancer goes through while clients ask without a pause: instances come and go, certificates are ordered
 * and renewed, HAProxy is reloaded, the daemon is killed. No request fails of it.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { certificateKind } from "../src/kinds/certificate.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import {
  type Authority,
  answerers,
  ask,
  BalancerScene,
  type Load,
  project,
  startAuthority,
  startLoad,
} from "./balancer-scene.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { until } from "./test-daemon.ts";

const port = 18_080;
const securePort = 18_443;
const connections = 8;
/** Renewed after two thirds of it. */
const lifeSeconds = 24;
let before: Snapshot;
let scene: BalancerScene;
let authority: Authority;

beforeAll(async () => {
  before = await takeSnapshot();
  scene = await BalancerScene.create();
  authority = await startAuthority(await scene.daemon.scratch("authority"), port, lifeSeconds);
  for (const name of ["one", "two", "three"]) await scene.createInstance(name);
  await scene.untilReady("one", "two", "three");
  await scene.createBalancer("front", { listeners: [{ port }], instances: ["one", "two"] });
  await scene.untilServers("front", { one: "up", two: "up" });
}, 300_000);

afterAll(async () => {
  await authority?.stop();
  await scene?.daemon.dispose();
  expect(await findLeaks(before, scene.daemon.marks)).toEqual([]);
}, 120_000);

async function underLoad(work: () => Promise<void>): Promise<void> {
  const stop = startLoad(port, connections);
  let load: Load | undefined;
  try {
    await work();
  } finally {
    load = await stop();
  }
  expect(load.failures).toEqual([]);
  expect(load.requests).toBeGreaterThan(100);
}

/** Of HAProxy's master. */
async function masterPid(): Promise<number> {
  const { uid } = (await scene.balancer("front")).metadata;
  const path = join(scene.daemon.settings.runDir, "balancers", uid, "pid");
  return Number((await readFile(path, "utf8")).trim());
}

describe("no request fails while", () => {
  it("instances come and go", async () => {
    await underLoad(async () => {
      for (let i = 0; i < 10; i++) {
        await scene.change("front", { instances: ["one", "three"] });
        await scene.untilServers("front", { one: "up", three: "up" });
        await scene.change("front", { instances: ["two", "one"] });
        await scene.untilServers("front", { one: "up", two: "up" });
      }
    });
  }, 120_000);

  it("HAProxy takes a new configuration over", async () => {
    await underLoad(async () => {
      for (const maxConnections of [500, 600, 700, 2_000]) await scene.change("front", { maxConnections });
    });
    expect(await answerers(port, 6)).toEqual(["one", "two"]);
  }, 60_000);

  it("the daemon is killed and started again, and takes HAProxy over as it is", async () => {
    const pid = await masterPid();
    await underLoad(async () => {
      await scene.daemon.kill();
      expect(await answerers(port, 10)).toEqual(["one", "two"]);
      await scene.daemon.start();
      await scene.change("front", { instances: ["one", "two", "three"] });
      await scene.untilServers("front", { one: "up", two: "up", three: "up" });
    });
    expect(await masterPid()).toBe(pid);
    expect(await answerers(port, 9)).toEqual(["one", "three", "two"]);
  }, 60_000);
});

it("HAProxy that was killed is back at once, with its servers", async () => {
  const pid = await masterPid();
  process.kill(pid, "SIGKILL");
  await until("it is another", async () => (await masterPid().catch(() => pid)) !== pid, 10_000);
  await until(
    "it answers",
    () =>
      ask(port).then(
        ({ status }) => status === 200,
        () => false,
      ),
    10_000,
  );
  await scene.untilServers("front", { one: "up", two: "up", three: "up" });
  expect(await answerers(port, 9)).toEqual(["one", "three", "two"]);
}, 40_000);

it("a health check that fails takes an instance out, and in again", async () => {
  const health = (name: string, ok: boolean) =>
    scene.daemon.ok(["exec", name, "--", "sh", "-c", ok ? "echo ok >/run/www/health" : "rm /run/www/health"]);
  for (const name of ["one", "two", "three"]) await health(name, true);
  await scene.change("front", { healthCheck: { type: "http", path: "/health", intervalMs: 200, fall: 1 } });
  await scene.untilServers("front", { one: "up", two: "up", three: "up" });
  await health("two", false);
  await scene.untilServers("front", { one: "up", two: "down", three: "up" });
  expect(await answerers(port, 6)).toEqual(["one", "three"]);
  await health("two", true);
  await scene.untilServers("front", { one: "up", two: "up", three: "up" });
  await scene.change("front", { healthCheck: { type: "tcp" } });
}, 60_000);

it("an instance that is stopped leaves, and comes back when it is started", async () => {
  const power = (value: "running" | "stopped") =>
    scene.daemon.client.patch(instanceKind, { project, name: "three" }, { spec: { power: value } });
  await power("stopped");
  await scene.untilServers("front", { one: "up", two: "up" });
  await power("running");
  await scene.untilServers("front", { one: "up", two: "up", three: "up" });
}, 60_000);

describe("a certificate from an authority", () => {
  const certificate = () => scene.daemon.client.require(certificateKind, { project, name: "site" });

  it("is ordered through the balancer, which redirects everything else", async () => {
    const { directory, authorities } = authority;
    const spec = { acme: { domains: ["www.example.test"], directory, authorities } };
    await scene.daemon.client.create(certificateKind, { project, name: "site", spec });
    const listeners = [
      { port, redirectTo: securePort },
      { port: securePort, protocol: "https", certificates: ["site"] },
    ];
    await scene.change("front", { listeners });
    await until(
      "it is ready",
      async () => {
        const { status } = await certificate();
        return status.state === "ready" && status.domains.includes("www.example.test");
      },
      60_000,
    );
    expect((await ask(port)).status).toBe(308);
  }, 90_000);

  it("is renewed before it ends, without a failed request", async () => {
    const first = (await certificate()).status;
    // Whom to trust is pebble's secret; that it is not the placeholder is seen by its fingerprint.
    const tls = { ca: await rootOf(), servername: "www.example.test" };
    const plain = (fingerprint = "") => fingerprint.replaceAll(":", "").toLowerCase();
    await until(
      "it is served",
      async () =>
        plain((await ask(securePort, { tls }).catch(() => undefined))?.fingerprint) === first.fingerprint,
      20_000,
    );
    const stop = startLoad(securePort, 4, { tls });
    await until(
      "it is another",
      async () => {
        const { status } = await certificate();
        expect(status.message).toBe("");
        return status.fingerprint !== first.fingerprint;
      },
      60_000,
    );
    const second = (await certificate()).status;
    await until(
      "that is served",
      async () => plain((await ask(securePort, { tls })).fingerprint) === second.fingerprint,
      10_000,
    );
    const load = await stop();
    expect(load.failures).toEqual([]);
    expect(load.requests).toBeGreaterThan(20);
  }, 120_000);
});

/** Of the certificates that pebble gives out in this life of it. */
async function rootOf(): Promise<string> {
  const tls = { ca: authority.authorities, servername: "localhost" };
  return (await ask(15_000, { path: "/roots/0", tls })).text;
}
