import { afterEach, beforeEach, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../sim/agent-bench.ts";
import { fakeNetwork } from "../../sim/fake-host.ts";
import { StrataError } from "../core/errors.ts";
import { canonicalJson } from "../core/json.ts";
import { settle } from "../core/virtual-clock.ts";
import { eventKind } from "../kinds/event.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { volumeKind } from "../kinds/volume.ts";

let bench: AgentBench;
let calls: string[];

beforeEach(async () => {
  calls = [];
  bench = await agentBench({
    link: (name, call) => {
      calls.push(name);
      return call();
    },
  });
});
afterEach(() => bench.stop());

const isRunning = (instance: Instance) => instance.status.state === "running";
const guestOf = (instance: Instance) => bench.host.world.guests.get(instance.metadata.uid);

async function runWeb(spec: object = {}): Promise<Instance> {
  await bench.createImage();
  await bench.createInstance("web", spec);
  return bench.until("web", isRunning);
}

async function eventsOf(name: string): Promise<string[]> {
  const page = await bench.services.resources.list(bench.me, eventKind, { project: "default", limit: 1000 });
  return page.items
    .map((item) => item.spec as { subject: { name: string }; reason: string })
    .filter((spec) => spec.subject.name === name)
    .map((spec) => spec.reason);
}

const isGone = (name: string) => async () => (await bench.get(name)) === undefined;

test("an instance comes to run: image, network, disk, guest, and all is recorded", async () => {
  const web = await runWeb();
  expect(web.status).toMatchObject({ reason: "Running", message: "", driver: "fake", observedGeneration: 1 });
  expect(guestOf(web)?.state).toBe("running");
  const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
  expect(web.status.imageDigest).toBe(image.status.digest);
  expect(image.status).toMatchObject({ state: "ready", host: "alpha", os: "Simulated" });
  const network = await bench.client.require(networkKind, { project: "default", name: "default" });
  expect(network.status.state).toBe("ready");
  const cards = bench.host.bridges.get(network.metadata.uid)?.policy.cards ?? [];
  expect(cards).toHaveLength(1);
  expect(cards[0]).toMatchObject({
    uid: web.metadata.uid,
    hostname: "web",
    ipAddress: web.status.nic?.ipAddress,
    macAddress: web.status.nic?.macAddress,
  });
  expect(guestOf(web)?.spec).toMatchObject({ title: "default/web", hostname: "web", type: "container" });
  expect(guestOf(web)?.spec.nics[0]?.port.length).toBeLessThanOrEqual(15);
  await bench.clock.advance(600);
  expect(await eventsOf("web")).toEqual(["Created", "Started"]);
});

test("the way from placement to the guest's start takes one call of the API", async () => {
  await runWeb();
  let atStart = -1;
  const { world } = bench.host;
  const run = world.run.bind(world);
  world.run = (uid) => {
    atStart = calls.filter((name) => name !== "event" && name !== "apply").length;
    run(uid);
  };
  await bench.createInstance("next");
  calls.length = 0;
  await bench.until("next", isRunning);
  expect(atStart).toBe(1);
});

test("one change among many costs as much as among few", async () => {
  await bench.createImage();
  for (let index = 0; index < 80; index++) await bench.createInstance(`web-${index}`, { memoryMib: 64 });
  for (let index = 0; index < 80; index++) await bench.until(`web-${index}`, isRunning);
  await bench.clock.advance(5_000);
  const { world } = bench.host;
  const verbs: string[] = [];
  const call = world.call.bind(world);
  world.call = (verb, ...rest) => {
    verbs.push(verb);
    return call(verb, ...rest);
  };
  calls.length = 0;
  await bench.patch("web-40", { restarts: 1 });
  await bench.until("web-40", (instance) => isRunning(instance) && instance.status.observedRestarts === 1);
  await settle();
  expect(verbs.length).toBeLessThanOrEqual(10);
  expect(calls.filter((name) => name !== "event").length).toBeLessThanOrEqual(4);
});

test("a start costs no virtual time: every step follows from the event before", async () => {
  await runWeb();
  const begun = bench.clock.now();
  await bench.createInstance("next");
  await bench.until("next", isRunning);
  expect(bench.clock.now() - begun).toBeLessThanOrEqual(10);
});

test("a crash is seen through the driver's event, and the guest starts again after a growing delay", async () => {
  const web = await runWeb();
  for (const [count, delayMs] of [1_000, 2_000, 4_000, 8_000].entries()) {
    bench.host.world.kill(web.metadata.uid);
    const begun = bench.clock.now();
    const waiting = await bench.until("web", (instance) => instance.status.state === "backoff", 100);
    expect(waiting.status).toMatchObject({ reason: "Crashed", crashes: count + 1, recentCrashes: count + 1 });
    expect(waiting.status.message).toContain("killed by signal 9");
    await bench.until("web", isRunning);
    expect(bench.clock.now() - begun).toBeGreaterThanOrEqual(delayMs);
    expect(bench.clock.now() - begun).toBeLessThanOrEqual(delayMs + 100);
  }
  expect(await eventsOf("web")).toEqual(expect.arrayContaining(["Crashed", "BackOff", "Started"]));
});

test("ten minutes of running forgive earlier crashes", async () => {
  const web = await runWeb();
  bench.host.world.kill(web.metadata.uid);
  await bench.until("web", (instance) => isRunning(instance) && instance.status.crashes === 1);
  await bench.clock.advance(9 * 60_000);
  expect((await bench.get("web"))?.status.recentCrashes).toBe(1);
  await bench.clock.advance(61_000);
  expect((await bench.get("web"))?.status).toMatchObject({ recentCrashes: 0, crashes: 1, state: "running" });
});

test("restartPolicy on-failure leaves a guest that shut itself down alone, until it is restarted", async () => {
  const web = await runWeb({ restartPolicy: "on-failure" });
  bench.host.world.powerOff(web.metadata.uid);
  const stopped = await bench.until("web", (instance) => instance.status.state === "stopped");
  expect(stopped.status.reason).toBe("PoweredOff");
  await bench.clock.advance(3_600_000);
  expect(guestOf(web)?.state).toBe("stopped");
  await bench.patch("web", { restarts: 1 });
  await bench.until("web", isRunning);
});

test("restartPolicy never: a crash is told and left so", async () => {
  const web = await runWeb({ restartPolicy: "never" });
  bench.host.world.kill(web.metadata.uid);
  const failed = await bench.until("web", (instance) => instance.status.state === "failed");
  expect(failed.status.message).toContain("killed by signal 9");
  await bench.clock.advance(3_600_000);
  expect((await bench.get("web"))?.status.state).toBe("failed");
});

test("power stops and starts; a stop is never undone by the restart policy", async () => {
  const web = await runWeb();
  await bench.patch("web", { power: "stopped" });
  const stopped = await bench.until("web", (instance) => instance.status.state === "stopped");
  expect(stopped.status.startedAt).toBeUndefined();
  expect(guestOf(web)?.state).toBe("stopped");
  await bench.clock.advance(3_600_000);
  expect(guestOf(web)?.state).toBe("stopped");
  await bench.patch("web", { power: "running" });
  const again = await bench.until("web", isRunning);
  expect(again.status.crashes).toBe(0);
  expect(again.status.nic).toEqual(web.status.nic);
});

test("a restart that is asked for happens once", async () => {
  const web = await runWeb();
  const before = guestOf(web)?.runId;
  await bench.patch("web", { restarts: 3 });
  await bench.until("web", (instance) => isRunning(instance) && instance.status.observedRestarts === 3);
  const after = guestOf(web)?.runId;
  expect(after).not.toBe(before);
  await bench.clock.advance(600_000);
  expect(guestOf(web)?.runId).toBe(after);
  expect((await bench.get("web"))?.status.crashes).toBe(0);
});

test("deletion takes everything away, addresses and disk included", async () => {
  const web = await runWeb();
  await bench.remove("web");
  await bench.waitFor("web is gone", isGone("web"));
  const { host } = bench;
  expect([host.world.guests.size, host.roots.size]).toEqual([0, 0]);
  expect(host.cards()).toEqual([]);
  const volumes = await bench.client.list(volumeKind, {});
  expect(volumes.items).toEqual([]);
  await bench.clock.advance(600);
  expect(await eventsOf("web")).toContain("Deleted");
  expect(web.metadata.finalizers).toEqual(["agent"]);
});

test("deletion does not wait for a guest that ignores the request to stop", async () => {
  const web = await runWeb();
  const guest = guestOf(web);
  if (guest) guest.spec.config.shutdownMs = "never";
  await bench.patch("web", { power: "stopped" });
  await bench.until("web", (instance) => instance.status.state === "stopping");
  await bench.remove("web");
  const begun = bench.clock.now();
  await bench.waitFor("web is gone", isGone("web"));
  expect(bench.clock.now() - begun).toBeLessThan(1_000);
});

test("a guest that ignores the request to stop is killed when the grace period ends", async () => {
  const web = await runWeb();
  const guest = guestOf(web);
  if (guest) guest.spec.config.shutdownMs = "never";
  await bench.patch("web", { power: "stopped" });
  const begun = bench.clock.now();
  await bench.until("web", (instance) => instance.status.state === "stopped");
  expect(bench.clock.now() - begun).toBeGreaterThanOrEqual(30_000);
});

test("a restarted agent takes over running guests: no restart, no change of status", async () => {
  const web = await runWeb({ services: [{ name: "http", port: 80 }] });
  await bench.until("web", (instance) => instance.status.conditions.some(({ status }) => status === "true"));
  const before = await bench.get("web");
  const runId = guestOf(web)?.runId;
  await bench.stopAgent();
  await bench.clock.advance(5_000);
  bench.startAgent();
  await bench.clock.advance(120_000);
  expect(guestOf(web)?.runId).toBe(runId);
  expect((await bench.get("web"))?.metadata.revision).toBe(before?.metadata.revision);
});

test("what happened while no agent ran is found afterwards", async () => {
  const web = await runWeb();
  await bench.stopAgent();
  bench.host.world.kill(web.metadata.uid);
  await bench.createInstance("other");
  await bench.clock.advance(1_000);
  bench.startAgent();
  await bench.until("other", isRunning);
  const again = await bench.until("web", isRunning);
  expect(again.status.crashes).toBe(1);
});

test("a guest that vanished is made anew on its old disk", async () => {
  const web = await runWeb();
  const roots = [...bench.host.roots.keys()];
  bench.host.world.remove(web.metadata.uid);
  const again = await bench.until("web", (instance) => isRunning(instance) && instance.status.crashes === 1);
  expect(guestOf(again)?.state).toBe("running");
  expect([...bench.host.roots.keys()]).toEqual(roots);
});

test("Ready follows the services, and a service that is slow is named", async () => {
  let open = false;
  const slow = await agentBench({ connect: async () => open });
  await slow.createImage();
  await slow.createInstance("web", { services: [{ name: "http", port: 8080 }] });
  const ready = (instance: Instance) => instance.status.conditions.find(({ type }) => type === "Ready");
  const early = await slow.until("web", isRunning);
  expect(ready(early)?.status).toBe("false");
  const told = await slow.until(
    "web",
    (instance) => ready(instance)?.message.includes("http (port 8080)") ?? false,
  );
  expect(ready(told)?.reason).toBe("ServicesNotReady");
  open = true;
  await slow.until("web", (instance) => ready(instance)?.status === "true", 2_000);
  await slow.stop();
});

test("an image that cannot be made is failed with the reason, and its instances say so", async () => {
  const source = { type: "debian", suite: "bookworm", packages: [] };
  const bad = new StrataError("Invalid", "the archive holds a device file");
  bench.host.badSources.set(canonicalJson(source), bad);
  await bench.createImage();
  await bench.createInstance("web");
  const web = await bench.until("web", (instance) => instance.status.state === "failed");
  expect(web.status).toMatchObject({ reason: "ImageFailed" });
  expect(web.status.message).toContain("device file");
  const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
  expect(image.status).toMatchObject({ state: "failed", message: "the archive holds a device file" });
  bench.host.badSources.clear();
  await bench.clock.advance(600_000);
  const same = await bench.client.require(imageKind, { project: "default", name: "debian" });
  expect(same.status.state).toBe("failed");
});

test("an image that fails for a reason that may pass is made in the end", async () => {
  const source = { type: "debian", suite: "bookworm", packages: [] };
  const away = new StrataError("Unavailable", "the mirror does not answer");
  bench.host.badSources.set(canonicalJson(source), away);
  await bench.createImage();
  await bench.createInstance("web");
  await bench.waitFor("the failure is told", async () => {
    const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
    return image.status.message.includes("the mirror does not answer; trying again");
  });
  bench.host.badSources.clear();
  await bench.until("web", isRunning);
});

test("an image under way tells how far it is, and is given up when it is deleted", async () => {
  bench.host.makeMs = 3_600_000;
  await bench.createImage();
  await bench.waitFor("progress is told", async () => {
    const image = await bench.client.require(imageKind, { project: "default", name: "debian" });
    return image.status.state === "building" && image.status.progress?.fraction === 0.5;
  });
  await bench.services.resources.delete(bench.me, imageKind, { project: "default", name: "debian" });
  await bench.waitFor(
    "the image is gone",
    async () => (await bench.client.get(imageKind, { project: "default", name: "debian" })) === undefined,
    1_000,
  );
  expect(bench.host.builds).toBe(0);
});

test("where the image store is its own, what an image was made into goes with its last user", async () => {
  await bench.stopAgent();
  bench.startAgent({ removeUnusedImages: true });
  await runWeb();
  await bench.clock.advance(1_200_000);
  expect(bench.host.storedImages.size).toBe(1);
  await bench.remove("web");
  await bench.waitFor("web is gone", isGone("web"));
  await bench.services.resources.delete(bench.me, imageKind, { project: "default", name: "debian" });
  await bench.clock.advance(3_600_000);
  expect(bench.host.storedImages.size).toBe(1);
  await bench.clock.advance(24 * 3_600_000);
  expect(bench.host.storedImages.size).toBe(0);
});

test("a network that broke is made again, with the cards of those in it", async () => {
  const web = await runWeb();
  const [uid = ""] = bench.host.bridges.keys();
  bench.host.breakNetwork(uid);
  await bench.waitFor("the network is back", () => bench.host.bridges.has(uid));
  await bench.waitFor("its cards too", () =>
    bench.host.cards().some(({ network, card }) => network === uid && card.uid === web.metadata.uid),
  );
});

test("what no resource knows is removed, after a grace, and nothing else", async () => {
  const web = await runWeb();
  const { host } = bench;
  const guest = guestOf(web);
  const stray = "zzzzzzzzzzzzzzzz" as typeof web.metadata.uid;
  if (guest) host.world.guests.set(stray, { ...structuredClone(guest), state: "running", runId: "stray" });
  host.roots.set("yyyyyyyyyyyyyyyy", "");
  host.bridges.set("xxxxxxxxxxxxxxxx", fakeNetwork());
  await bench.stopAgent();
  bench.startAgent();
  await bench.clock.advance(30_000);
  expect(host.world.guests.has(stray)).toBe(true);
  await bench.clock.advance(120_000);
  expect([...host.world.guests.keys()]).toEqual([web.metadata.uid]);
  expect(host.roots.size).toBe(1);
  expect(host.bridges.size).toBe(1);
  expect((await bench.get("web"))?.status).toMatchObject({ state: "running", crashes: 0 });
});

test("a driver that fails is tried again with back-off, and the reason is told", async () => {
  const { world } = bench.host;
  for (let i = 1; i <= 3; i++) world.script({ verb: "start", nth: i, effect: { type: "fail" } });
  await bench.createImage();
  await bench.createInstance("web");
  const told = await bench.until("web", (instance) => instance.status.reason === "StartFailed");
  expect(told.status).toMatchObject({ state: "starting" });
  expect(told.status.message).toContain("trying again in");
  const web = await bench.until("web", isRunning);
  expect(web.status).toMatchObject({ message: "", crashes: 0 });
});

test("what can never start is failed, and tried again once it is changed", async () => {
  const { world } = bench.host;
  world.script({ verb: "create", effect: { type: "fail", code: "Invalid" } });
  await bench.createImage();
  await bench.createInstance("web");
  const failed = await bench.until("web", (instance) => instance.status.state === "failed");
  expect(failed.status.reason).toBe("StartFailed");
  await bench.clock.advance(600_000);
  expect((await bench.get("web"))?.status.state).toBe("failed");
  await bench.patch("web", { restarts: 1 });
  await bench.until("web", isRunning);
});

test("many instances come up together, and go together", async () => {
  await bench.createImage();
  const names = Array.from({ length: 60 }, (_, index) => `web-${index}`);
  for (const name of names) await bench.createInstance(name, { memoryMib: 64 });
  for (const name of names) await bench.until(name, isRunning);
  const addresses = new Set(
    [...bench.host.world.guests.values()].map((guest) => guest.spec.nics[0]?.ipAddress),
  );
  expect(addresses.size).toBe(60);
  await bench.drive(
    bench.services.resources.delete(bench.me, projectKind, { name: "default" }, { cascade: true }),
  );
  await bench.waitFor(
    "the project is gone",
    async () => (await bench.client.get(projectKind, { name: "default" })) === undefined,
  );
  expect([bench.host.world.guests.size, bench.host.roots.size, bench.host.bridges.size]).toEqual([0, 0, 0]);
});

test("what does not fit waits with the reason, and is placed when there is room", async () => {
  await runWeb({ memoryMib: 10_000 });
  await bench.createInstance("second", { memoryMib: 8_000 });
  const waiting = await bench.until("second", (instance) => instance.status.reason === "NoHost");
  expect(waiting.status.message).toMatch(/alpha has .* of memory free, 7.8 GiB needed/);
  await bench.remove("web");
  await bench.until("second", isRunning);
});

test("a host that is silent is not ready, and is ready again when it speaks", async () => {
  const web = await runWeb();
  const host = () => bench.client.require(hostKind, { name: "alpha" });
  await bench.stopAgent();
  await bench.waitFor("not ready", async () => (await host()).status.state === "not-ready", 20_000);
  expect((await host()).status.message).toContain("no sign of life");
  expect(guestOf(web)?.state).toBe("running");
  bench.startAgent();
  await bench.waitFor("ready", async () => (await host()).status.state === "ready", 5_000);
});

test("a cordoned host gets nothing new", async () => {
  await runWeb();
  await bench.client.patch(hostKind, { name: "alpha" }, { spec: { cordoned: true } });
  await bench.createInstance("second");
  const waiting = await bench.until("second", (instance) => instance.status.reason === "NoHost");
  expect(waiting.status.message).toContain("alpha is cordoned");
  await bench.client.patch(hostKind, { name: "alpha" }, { spec: { cordoned: false } });
  await bench.until("second", isRunning);
});
