/**
 * Groups on real containers: members come and go, heal, are replaced by a new version, go back to the old one when the new one
 * does not work, wait warm, and lend their capacity; also while the daemon is killed.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { type Group, type GroupSpec, groupKind } from "../src/kinds/group.ts";
import { hostKind } from "../src/kinds/host.ts";
import type { Instance } from "../src/kinds/instance.ts";
import { type LoadBalancer, loadBalancerKind } from "../src/kinds/load-balancer.ts";
import { guestPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
}, 200_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 180_000);

const template = {
  type: "container" as const,
  image: "tiny",
  memoryMib: 64,
  diskMib: 64,
  services: [{ name: "http", port: 80, protocol: "http" as const }],
};
const failing = { type: "command" as const, command: ["/bin/busybox", "false"], intervalMs: 200, fall: 1 };

type Change = Partial<Omit<GroupSpec, "template">> & { template?: object };

async function create(name: string, spec: object): Promise<void> {
  const quick = { inStabilizationSeconds: 0, inCooldownSeconds: 0 };
  const whole = { template, behavior: quick, ...spec };
  await daemon.client.create(groupKind, { project, name, spec: whole });
}

const group = (name: string): Promise<Group> => daemon.client.require(groupKind, { project, name });

async function patch(name: string, spec: Change): Promise<void> {
  await daemon.client.patch(groupKind, { project, name }, { spec: spec as never });
}

async function members(name: string): Promise<Instance[]> {
  const all = await daemon.instances(project);
  return all.filter(({ metadata }) => metadata.owner?.name === name && metadata.deletedAt === undefined);
}

/** Until the group has so many members, all of them healthy, and nothing more to do. */
async function untilSteady(name: string, count: number, limitMs = 60_000): Promise<void> {
  const steady = async () => {
    const { metadata, status } = await group(name).catch(() => ({ metadata: undefined, status: undefined }));
    if (!status || status.observedGeneration < metadata.generation || status.state !== "steady") return false;
    return status.ready === count && (await members(name)).length === count + status.warm;
  };
  await until(`group ${name} has ${count} members`, steady, limitMs).catch(async (error: unknown) => {
    const { status } = await group(name);
    throw new Error(`${name} is ${status.state} (${status.message}), ${status.ready} ready`, {
      cause: error,
    });
  });
}

async function remove(name: string): Promise<void> {
  await daemon.client.delete(groupKind, { project, name });
  await until(
    `group ${name} is gone`,
    async () => (await daemon.client.get(groupKind, { project, name })) === undefined,
    60_000,
  );
  expect(await members(name)).toEqual([]);
}

it("members come, answer, and go with what is desired; killed, one heals; the daemon killed, all stays", async () => {
  await create("web", { min: 2, max: 6 });
  await untilSteady("web", 2);
  await patch("web", { desired: 5 });
  await untilSteady("web", 5);
  for (const member of await members("web")) {
    expect((await httpGet(`http://${addressOf(member)}/`)).text).toContain(member.metadata.name);
  }
  const [victim] = await members("web");
  if (!victim) throw new Error("there is no member");
  process.kill(await guestPid(victim), "SIGKILL");
  await until(
    "the kill is noticed",
    async () =>
      (await members("web")).some(({ status }) => status.crashes > 0) ||
      (await group("web")).status.ready < 5,
    20_000,
  );
  await untilSteady("web", 5);
  const bootIds = async () =>
    await Promise.all(
      (await members("web")).map(async (one) => (await httpGet(`http://${addressOf(one)}/boot-id`)).text),
    );
  const boots = (await bootIds()).sort();
  await patch("web", { desired: 6 });
  expect(await daemon.kill()).toBe(true);
  await daemon.start();
  await untilSteady("web", 6);
  expect(await bootIds()).toEqual(expect.arrayContaining(boots));
  await patch("web", { desired: 2 });
  await untilSteady("web", 2);
}, 240_000);

it("an update replaces members one after another; one that fails goes back while the old members serve", async () => {
  const port = 18_380;
  await daemon.client.create(loadBalancerKind, {
    project,
    name: "front",
    spec: { listeners: [{ port }], group: "web", targetPort: 80, accessLog: false },
  });
  await until(
    "the balancer answers",
    async () => (await httpGet(`http://127.0.0.1:${port}/`)).status === 200,
    30_000,
  );
  const load = new Load(`http://127.0.0.1:${port}/`);
  const old = (await members("web")).map(({ metadata }) => metadata.name);
  await patch("web", { template: { memoryMib: 96 } });
  await untilSteady("web", 2);
  const updated = (await members("web")).map(({ metadata }) => metadata.name);
  expect(updated.filter((name) => old.includes(name))).toEqual([]);
  await patch("web", { update: { timeoutSeconds: 4 } as never, template: { healthCheck: failing } });
  await until("the update is given up", async () => (await group("web")).status.state === "stopped", 60_000);
  const served = await group("web");
  expect(served.status.message).toMatch(/^version \w+ failed: web-\w+: not healthy within 4 s/);
  expect(served.status.revision).toBe(served.status.stable?.revision);
  await until("the failed members are gone", async () => (await members("web")).length === 2, 60_000);
  expect((await members("web")).map(({ metadata }) => metadata.name).sort()).toEqual(updated.sort());
  await patch("web", { template: { healthCheck: null } });
  await untilSteady("web", 2);
  const { requests, failures } = await load.end();
  console.log(`${requests} requests through both updates, ${failures.length} failed ${failures.slice(0, 3)}`);
  expect(requests).toBeGreaterThan(100);
  expect(failures).toEqual([]);
  await daemon.client.delete(loadBalancerKind, { project, name: "front" });
  await until("the balancer is gone", async () => (await balancers()).length === 0, 30_000);
}, 240_000);

async function balancers(): Promise<LoadBalancer[]> {
  return (await daemon.client.list(loadBalancerKind, { project })).items;
}

/** One request after another, on connections of their own. */
class Load {
  readonly #abort = new AbortController();
  readonly #done: Promise<void>;
  #requests = 0;
  readonly #failures: string[] = [];

  constructor(url: string) {
    this.#done = this.#run(url);
  }

  async #run(url: string): Promise<void> {
    while (!this.#abort.signal.aborted) {
      const { status, text } = await httpGet(url, 5_000);
      this.#requests++;
      if (status !== 200) this.#failures.push(`${status} ${text.slice(0, 80)}`);
      await systemClock.sleep(5);
    }
  }

  async end(): Promise<{ requests: number; failures: string[] }> {
    this.#abort.abort();
    await this.#done;
    return { requests: this.#requests, failures: this.#failures };
  }
}

it("a warm member serves at once, and another one takes its place", async () => {
  await patch("web", { warm: 1 });
  await until("a member waits", async () => (await group("web")).status.warm === 1, 60_000);
  const [warm] = (await members("web")).filter(({ status }) => status.member?.phase === "warm");
  const begun = systemClock.monotonicMs();
  await patch("web", { desired: 3 });
  await until("three serve", async () => (await group("web")).status.ready === 3, 10_000, 2);
  console.log(
    `from the wish to a warm member that serves: ${Math.round(systemClock.monotonicMs() - begun)} ms`,
  );
  const serving = (await members("web")).filter(({ status }) => status.member?.phase === "serving");
  expect(serving.map(({ metadata }) => metadata.name)).toContain(warm?.metadata.name);
  await until("another one waits", async () => (await group("web")).status.warm === 1, 60_000);
  await remove("web");
}, 180_000);

it("on a full host, a group of higher priority borrows what another has beyond its minimum, and gives it back", async () => {
  const [host] = (await daemon.client.list(hostKind, {})).items;
  const memoryMib = Math.floor((host?.status.allocatable.memoryMib ?? 0) / 4);
  const cpuOvercommit = 16;
  await daemon.client.patch(hostKind, { name: host?.metadata.name ?? "" }, { spec: { cpuOvercommit } });
  const large = { ...template, memoryMib };
  await create("low", { template: large, min: 1, max: 4, desired: 3 });
  await untilSteady("low", 3);
  await create("high", { template: large, min: 1, max: 3, priority: 10 });
  await untilSteady("high", 1);
  const promised = async () =>
    (await daemon.instances(project)).reduce(
      (sum, one) => sum + (one.status.host ? one.spec.memoryMib : 0),
      0,
    );
  const most = { members: 0 };
  const watching = (async () => {
    while ((await group("high")).status.ready < 3) {
      most.members = Math.max(most.members, (await promised()) / memoryMib);
      await systemClock.sleep(20);
    }
  })();
  await patch("high", { desired: 3 });
  await until("high has three", async () => (await group("high")).status.ready === 3, 60_000);
  await watching;
  expect(most.members).toBeLessThanOrEqual(4);
  const lender = await group("low");
  expect(lender.status).toMatchObject({ wanted: 3, desired: 1, lent: 2, state: "short", ready: 1 });
  expect(lender.status.message).toContain("lent to");
  await patch("high", { desired: 1 });
  await untilSteady("low", 3);
  expect((await group("low")).status.lent).toBe(0);
  const { stdout } = await daemon.ok(["group", "decisions", "low"]);
  expect(stdout).toContain("lent to");
  await remove("high");
  await remove("low");
}, 240_000);
