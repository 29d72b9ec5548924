/**
 * What a load balancer goes through while clients ask without a pause: instances come and go, certificates are ordered
 * and renewed, HAProxy is reloaded, the daemon is killed. No request fails of it.
 */
import { X509Certificate } from "node:crypto";
import { access, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { Agent } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { certificateKind } from "../src/kinds/certificate.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import {
  type Authority,
  answerer,
  answerers,
  ask,
  BalancerScene,
  type Load,
  ownCertificate,
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

/** Of the running balancer's files. */
async function directory(): Promise<string> {
  return join(scene.daemon.settings.runDir, "balancers", (await scene.balancer("front")).metadata.uid);
}

/** Of HAProxy's master. */
async function masterPid(): Promise<number> {
  return Number((await readFile(join(await directory(), "pid"), "utf8")).trim());
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

  it("an HAProxy that lacks the log's pipe, as one of an earlier version does, is succeeded by another", async () => {
    const pid = await masterPid();
    await underLoad(async () => {
      await rm(join(await directory(), "log.pipe"));
      await scene.daemon.kill();
      await scene.daemon.start();
      await scene.change("front", { maxConnections: 1_000, instances: ["one", "two", "three"] });
      await scene.untilServers("front", { one: "up", two: "up", three: "up" });
    });
    expect(await masterPid()).not.toBe(pid);
    await until("the old one ends", async () => !(await exists(pid)), 20_000);
  }, 60_000);
});

function exists(pid: number): Promise<boolean> {
  return access(`/proc/${pid}`).then(
    () => true,
    () => false,
  );
}

it("while the daemon is away a request costs HAProxy no more, and afterwards each has its line in the log again", async () => {
  await scene.change("front", { instances: ["one", "two", "three"] });
  const master = await masterPid();
  const costs = { up: await cost(master, 2_000), away: 0 };
  await scene.daemon.kill();
  // More lines than the pipe takes: HAProxy drops them and goes on.
  costs.away = await cost(master, 2_000);
  await scene.daemon.start();
  console.info("processor time of HAProxy for each request, µs:", costs);
  expect(costs.away).toBeLessThan(1.25 * costs.up);
  await scene.untilServers("front", { one: "up", two: "up", three: "up" });
  const log = async () => (await scene.daemon.ok(["load-balancer", "logs", "front"])).stdout;
  const linesOf = (text: string, path: string) => text.split(path).length - 1;
  // The pipe is empty once something new has come through.
  await until(
    "the log goes on",
    async () => {
      await ask(port, { path: "/again" });
      return linesOf(await log(), "/again") > 0;
    },
    20_000,
  );
  for (let i = 0; i < 200; i++) await ask(port, { path: `/each-${i}.` });
  await until("each has its line", async () => linesOf(await log(), "/each-") >= 200, 20_000);
  expect(new Set((await log()).match(/\/each-\d+\./g)).size).toBe(200);
}, 90_000);

/** Processor time of HAProxy for each of so many requests, µs. */
async function cost(master: number, requests: number): Promise<number> {
  const start = await processorNs(master);
  const loops = Array.from({ length: connections }, async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < requests / connections; i++) {
      expect((await ask(port, { agent })).status).toBe(200);
    }
    agent.destroy();
  });
  await Promise.all(loops);
  return ((await processorNs(master)) - start) / 1000 / requests;
}

async function children(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim().split(" ");
}

/** That the newest worker has had so far, all of its threads. */
async function processorNs(master: number): Promise<number> {
  const worker = (await children(master)).at(-1) ?? "";
  let sum = 0;
  for (const thread of await readdir(`/proc/${worker}/task`)) {
    sum += Number((await readFile(`/proc/${worker}/task/${thread}/schedstat`, "utf8")).split(" ", 1)[0]);
  }
  return sum;
}

it("requests that are held outlive the daemon, and so do those that come while it is away", async () => {
  const power = (value: "running" | "stopped") =>
    scene.daemon.client.patch(instanceKind, { project, name: "three" }, { spec: { power: value } });
  const waiting = 18_092;
  await power("stopped");
  await scene.createBalancer("waiting", { listeners: [{ port: waiting }], instances: ["three"] });
  const held = async () => (await scene.balancer("waiting")).status.held;
  const asked = Array.from({ length: 5 }, () => ask(waiting));
  await until("five are held", async () => (await held()) === 5, 10_000);
  await scene.daemon.kill();
  asked.push(ask(waiting));
  await scene.daemon.start();
  await until("all six are held again", async () => (await held()) === 6, 10_000);
  await power("running");
  const answers = await Promise.all(asked);
  expect(answers.map((answer) => [answer.status, answerer(answer)])).toEqual(
    Array.from({ length: 6 }, () => [200, "three"]),
  );
  await scene.delete("waiting");
}, 90_000);

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

it("certificates that are too large for HAProxy's commands are exchanged without a failed request", async () => {
  const directory = await scene.daemon.scratch("large");
  await mkdir(directory, { recursive: true });
  const names = Array.from({ length: 1_000 }, (_, i) => `name-${i}.example.test`);
  const make = () => ownCertificate(directory, "www.example.test", names);
  const plain = (text = "") => text.replaceAll(":", "").toLowerCase();
  const [first, second] = [await make(), await make()];
  expect(first.certificate.length).toBeGreaterThan(30_000);
  const tls = { ca: first.certificate + second.certificate, servername: "www.example.test" };
  const ref = { project, name: "large" };
  await scene.daemon.client.create(certificateKind, { ...ref, spec: { own: { ...first } } });
  await scene.change("front", {
    listeners: [{ port }, { port: securePort, protocol: "https", certificates: ["large"] }],
  });
  const served = async () => plain((await ask(securePort, { tls })).fingerprint);
  expect(await served()).toBe(plain(new X509Certificate(first.certificate).fingerprint256));
  const stop = startLoad(securePort, 4, { tls });
  await scene.daemon.client.patch(certificateKind, ref, { spec: { own: { ...second } } });
  const wanted = plain(new X509Certificate(second.certificate).fingerprint256);
  await until("the second is served", async () => (await served()) === wanted, 10_000);
  const worker = (await children(await masterPid())).at(-1);
  // It is looked at again, and nothing is reloaded.
  await scene.change("front", { instances: ["one"] });
  await scene.untilServers("front", { one: "up" });
  expect((await children(await masterPid())).at(-1)).toBe(worker);
  const load = await stop();
  expect(load.failures).toEqual([]);
  expect(load.requests).toBeGreaterThan(20);
}, 60_000);

/** Of the certificates that pebble gives out in this life of it. */
async function rootOf(): Promise<string> {
  const tls = { ca: authority.authorities, servername: "localhost" };
  return (await ask(15_000, { path: "/roots/0", tls })).text;
}
