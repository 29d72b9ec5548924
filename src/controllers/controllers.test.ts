import { afterEach, beforeEach, expect, test } from "vitest";
import { controllerVerbs } from "../../sim/service-client.ts";
import { toTimestamp } from "../core/clock.ts";
import { silentLogger } from "../core/logger.ts";
import { seededRandom } from "../core/random.ts";
import { settle, type VirtualClock } from "../core/virtual-clock.ts";
import { eventKind, eventRetention } from "../kinds/event.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind } from "../kinds/kind.ts";
import { leaseKind } from "../kinds/lease.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { tokenKind } from "../kinds/token.ts";
import { volumeKind } from "../kinds/volume.ts";
import { createMemoryMetricStore } from "../metrics/memory/memory-metric-store.ts";
import { systemPrincipal as me } from "../services/principal.ts";
import type { Services } from "../services/services.ts";
import { createHost, createImage, testServices } from "../services/testing.ts";
import type { Store } from "../store/store.ts";
import { startControllers } from "./controllers.ts";

let services: Services;
let store: Store;
let clock: VirtualClock;
let abort: AbortController;
let running: Promise<void>;

beforeEach(async () => {
  ({ services, store, clock } = await testServices());
  abort = new AbortController();
  running = startControllers({
    store,
    metrics: createMemoryMetricStore({ clock }),
    clock,
    random: seededRandom(1),
    logger: silentLogger,
    verbs: controllerVerbs(services),
    signal: abort.signal,
  });
  await settle();
});

afterEach(async () => {
  abort.abort();
  await running;
});

const drivers = {
  fake: { available: true, message: "", version: "", types: ["container"], abilities: [], facts: {} },
};

async function readyHost(name: string, memoryMib: number): Promise<void> {
  const host = await createHost(services, name, memoryMib);
  await services.resources.patchStatus(me, hostKind, { name }, host.metadata.uid, { drivers } as never);
  await settle();
}

const create = (name: string, memoryMib = 512) =>
  services.resources.create(me, instanceKind, {
    project: "default",
    name,
    spec: { type: "container", image: "debian", memoryMib },
  });
const get = (name: string) => services.resources.require(me, instanceKind, { project: "default", name });

test("image, instance and its volume get a host, the latter two in one commit", async () => {
  await readyHost("alpha", 4_096);
  await createImage(services);
  await settle();
  const image = await services.resources.require(me, imageKind, { project: "default", name: "debian" });
  expect(image.status).toMatchObject({ host: "alpha", message: "waiting for host alpha to make it" });
  await create("web");
  await settle();
  const web = await get("web");
  expect(web.status).toMatchObject({ host: "alpha", reason: "Placed", state: "pending" });
  const volume = await services.resources.require(me, volumeKind, { project: "default", name: "web-root" });
  expect(volume.status.host).toBe("alpha");
  expect(volume.metadata.revision).toBe(web.metadata.revision);
});

test("without a host, both wait and say so; a host that registers takes them", async () => {
  await createImage(services);
  await create("web");
  await settle();
  expect((await get("web")).status.message).toContain("no host was found yet");
  await readyHost("alpha", 4_096);
  expect((await get("web")).status.host).toBe("alpha");
});

test("a burst fills the host exactly, and the rest waits", async () => {
  await readyHost("alpha", 4_096);
  await createImage(services);
  await Promise.all(Array.from({ length: 12 }, (_, index) => create(`i${index}`)));
  await settle();
  const page = await services.resources.list(me, instanceKind, { project: "default" });
  const placed = page.items.filter((item) => (item.status as { host?: string }).host === "alpha");
  expect(placed).toHaveLength(8);
  for (const waiting of page.items.filter((item) => !placed.includes(item))) {
    expect(waiting.status).toMatchObject({ reason: "NoHost" });
  }
});

test("what an instance gives back by becoming smaller, one that waits gets", async () => {
  await readyHost("alpha", 4_096);
  await createImage(services);
  await create("large", 4_096);
  await settle();
  await create("waits", 1_024);
  await settle();
  expect((await get("waits")).status.reason).toBe("NoHost");
  await services.resources.patch(
    me,
    instanceKind,
    { project: "default", name: "large" },
    { spec: { memoryMib: 2_048 } },
  );
  await settle();
  expect((await get("waits")).status.host).toBe("alpha");
});

test("memory is promised once, whoever grows while another is placed", async () => {
  await readyHost("alpha", 4_096);
  await createImage(services);
  await create("web", 1_024);
  await settle();
  const spec = { memoryMib: 2_048 };
  const grow = () =>
    services.resources.patch(me, instanceKind, { project: "default", name: "web" }, { spec });
  const results = await Promise.allSettled([
    create("a", 1_024),
    grow(),
    create("b", 1_024),
    create("c", 1_024),
  ]);
  await settle();
  await clock.advance(10_000);
  const page = await services.resources.list(me, instanceKind, { project: "default", host: "alpha" });
  const promised = page.items.reduce((sum, item) => sum + (item.spec as { memoryMib: number }).memoryMib, 0);
  expect(promised).toBe(4_096);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "CapacityExceeded" });
  }
});

test("a host that never renews its lease is not ready in the end, and one that does is", async () => {
  await readyHost("alpha", 4_096);
  const host = () => services.resources.require(me, hostKind, { name: "alpha" });
  await clock.advance(14_000);
  expect((await host()).status.state).toBe("ready");
  await clock.advance(2_000);
  expect((await host()).status.state).toBe("not-ready");
  const spec = { holder: "alpha", durationMs: 15_000, renewedAt: toTimestamp(clock.now()) };
  await services.resources.apply(me, leaseKind, { name: "alpha", spec });
  await settle();
  expect((await host()).status.state).toBe("ready");
});

test("a project goes when it is empty, and says what it waits for", async () => {
  await services.resources.create(me, projectKind, { name: "lab" });
  await services.resources.delete(me, projectKind, { name: "lab" }, { cascade: true });
  // The first look may still see some of what the same verb takes away.
  await clock.advance(600);
  const lab = await services.resources.require(me, projectKind, { name: "lab" });
  expect(lab.status).toEqual({ state: "deleting", message: "goes once these are gone: networks (default)" });
  const page = await services.resources.list(me, networkKind as Kind, { project: "lab" });
  const uid = page.items[0]?.metadata.uid ?? "";
  const ref = { project: "lab", name: "default" };
  await services.resources.removeFinalizer(me, networkKind as Kind, ref, uid, "agent");
  await clock.advance(600);
  expect(await services.resources.get(me, projectKind, { name: "lab" })).toBeUndefined();
});

test("the newest events are kept", async () => {
  const total = eventRetention + 250;
  for (let index = 0; index < total; index++) {
    const spec = {
      subject: { kind: "Instance", name: "web", uid: "x" },
      severity: "normal",
      reason: "R",
      message: "",
    };
    const name = `e${String(index).padStart(6, "0")}`;
    await services.resources.create(me, eventKind, { project: "default", name, spec });
  }
  await settle();
  const page = await services.resources.list(me, eventKind, { project: "default", limit: 1 });
  const { entries } = await store.list("/events/", { limit: 1000 });
  expect(page.items[0]?.metadata.name).not.toBe("e000000");
  expect(entries[0]?.key).not.toBe("/events/default/e000000");
  await expect(
    services.resources.get(me, eventKind, { project: "default", name: `e00${total - 1}` }),
  ).resolves.toBeDefined();
});

test("an expired token is removed, another is not", async () => {
  const token = (name: string, expiresInMs: number) =>
    services.resources.create(me, tokenKind, {
      name,
      spec: {
        role: "admin",
        secretHash: name.repeat(64),
        expiresAt: toTimestamp(clock.now() + expiresInMs),
      },
    });
  await token("a", 60_000);
  await token("b", 100 * 24 * 3_600_000);
  await clock.advance(61_000);
  expect(await services.resources.get(me, tokenKind, { name: "a" })).toBeUndefined();
  expect(await services.resources.get(me, tokenKind, { name: "b" })).toBeDefined();
});

test("old history is forgotten, recent history is not", async () => {
  await createImage(services);
  const early = await store.revision();
  await clock.advance(5 * 60_000);
  await create("web");
  const late = await store.revision();
  await clock.advance(9 * 60_000);
  await expect(store.list("/", { limit: 1, at: early - 1 })).rejects.toMatchObject({ code: "Compacted" });
  await expect(store.list("/", { limit: 1, at: late })).resolves.toBeDefined();
});
