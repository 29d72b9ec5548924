/** Storage pools through API and agent, on a simulated host. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../../sim/agent-bench.ts";
import { settle } from "../../core/virtual-clock.ts";
import { eventKind } from "../../kinds/event.ts";
import { type StoragePool, storagePoolKind } from "../../kinds/storage-pool.ts";
import { volumeKind } from "../../kinds/volume.ts";

const GiB = 1024 ** 3;
let bench: AgentBench;

beforeEach(async () => {
  bench = await agentBench();
  await bench.createImage();
  bench.host.directories.set("/srv/fast", { fileSystem: "xfs", reflink: true });
  Object.assign(bench.host.space, { capacityBytes: 100 * GiB, freeBytes: 90 * GiB });
});
afterEach(() => bench.stop());

const ref = { project: "default", name: "data" };
const get = () => bench.client.require(storagePoolKind, { name: "fast" });
const volume = () => bench.client.require(volumeKind, ref);

async function create(spec: object = {}): Promise<void> {
  const whole = { path: "/srv/fast", ...spec };
  await bench.services.resources.create(bench.me, storagePoolKind, { name: "fast", spec: whole });
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 400; round++) {
    if (await condition()) return;
    await bench.clock.advance(50);
    await settle();
  }
  throw new Error(`in vain: ${what}; ${JSON.stringify([await get(), await volume().catch(() => "none")])}`);
}

const isReady = async () => (await get()).status.state === "ready";
const condition = ({ status }: StoragePool, type: string) =>
  status.conditions.find((one) => one.type === type)?.status;
const events = async () =>
  (await bench.client.list(eventKind, { project: "default" })).items
    .map(({ spec }) => spec.reason)
    .filter((reason) => /StoragePool|Writers/.test(reason));

/** Of volumes; roots of containers are held as well, where the daemon's own directory is full. */
const held = async () => (await bench.host.disks.held()).filter((uid) => bench.host.data.has(uid));
const heldRoots = async () => (await bench.host.disks.held()).filter((uid) => bench.host.roots.has(uid));

async function attached(): Promise<void> {
  await bench.createInstance("web");
  await bench.until("web", ({ status }) => status.state === "running");
  const spec = { sizeMib: 120 * 1024, fileSystem: "ext4", pool: "fast", instance: "web" };
  await bench.services.resources.create(bench.me, volumeKind, { ...ref, spec });
  await until("it is attached", async () => (await volume()).status.state === "attached");
}

test("a pool is looked at, and says what it has and has promised", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  await until("it has promised", async () => (await get()).status.hosts.alpha?.promisedMib === 120 * 1024);
  expect((await get()).status.hosts.alpha).toMatchObject({
    state: "ready",
    prepared: true,
    fileSystem: "xfs",
    reflink: true,
    capacityMib: 100 * 1024,
    usedMib: 10 * 1024,
    freeMib: 90 * 1024,
  });
});

test("one that cannot be says why, one whose file system went away too, and is ready again afterwards", async () => {
  await create({ path: "/srv/none" });
  await until("it has failed", async () => (await get()).status.state === "failed");
  expect((await get()).status.message).toContain("/srv/none does not exist");
  await bench.services.resources.delete(bench.me, storagePoolKind, { name: "fast" });
  await until("it is gone", async () => (await bench.client.list(storagePoolKind, {})).items.length === 0);
  await create();
  await until("it is ready", isReady);
  bench.host.directories.clear();
  await until("it is not", async () => !(await isReady()));
  expect((await get()).status.hosts.alpha).toMatchObject({ prepared: true, capacityMib: 100 * 1024 });
  bench.host.directories.set("/srv/fast", { fileSystem: "xfs", reflink: true });
  await until("it is again", isReady);
});

test("of a pool whose file system is gone nothing can be deleted, until somebody says that it is lost", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  const { resources } = bench.services;
  const lose = (lost: boolean) =>
    resources.patch(bench.me, storagePoolKind, { name: "fast" }, { spec: { lost } });
  await expect(lose(true)).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining('storage pool "fast" is ready on host "alpha"'),
  });
  await resources.patch(bench.me, volumeKind, ref, { spec: { instance: null } });
  await until("it is detached", async () => (await volume()).status.state === "available");
  bench.host.directories.clear();
  await until("the pool is not ready", async () => !(await isReady()));
  const { uid } = (await volume()).metadata;
  await resources.delete(bench.me, volumeKind, ref);
  await until("it says why it stays", async () =>
    /is not there.*strata pool set fast --lost yes/.test((await volume()).status.message),
  );
  await expect(resources.delete(bench.me, storagePoolKind, { name: "fast" })).rejects.toMatchObject({
    code: "Conflict",
  });

  await lose(true);
  const volumes = async () =>
    (await bench.client.list(volumeKind, {})).items.filter(({ spec }) => spec.role === "data");
  await until("the volume is gone", async () => (await volumes()).length === 0);
  expect((await get()).status.message).toContain("was said to be lost for good");
  await resources.delete(bench.me, storagePoolKind, { name: "fast" });
  await until(
    "the pool is gone",
    async () => (await bench.client.list(storagePoolKind, {})).items.length === 0,
  );
  await bench.clock.advance(5_000);
  const told = (await bench.client.list(eventKind, { project: "default" })).items.map(({ spec }) => spec);
  expect(told.find(({ reason }) => reason === "Forgotten")?.message).toContain(`/srv/fast/${uid}.raw`);
});

test("one that is said to be lost too early is taken back, with all that is in it", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  bench.host.directories.clear();
  await until("it is not", async () => !(await isReady()));
  const { resources } = bench.services;
  const lose = (lost: boolean) =>
    resources.patch(bench.me, storagePoolKind, { name: "fast" }, { spec: { lost } });
  await lose(true);
  bench.host.directories.set("/srv/fast", { fileSystem: "xfs", reflink: true });
  await bench.clock.advance(30_000);
  expect(await isReady()).toBe(false);
  await lose(false);
  await until("it is ready again", isReady);
  expect((await volume()).status).toMatchObject({ state: "attached", pool: "fast" });
});

test("one that fills warns, lets writers wait, and lets them go on", async () => {
  await create({ warnPercent: 70 });
  await until("it is ready", isReady);
  await attached();
  expect(condition(await get(), "NearlyFull")).toBe("false");
  bench.host.space.freeBytes = 20 * GiB;
  await until("it warns", async () => condition(await get(), "NearlyFull") === "true");
  expect(await held()).toEqual([]);

  bench.host.space.freeBytes = 0.5 * GiB;
  await until("writers wait", async () => (await held()).length === 1);
  await until("it is full", async () => condition(await get(), "Full") === "true");
  expect((await volume()).status.message).toBe('writers wait: storage pool "fast" has no space left');

  bench.host.space.freeBytes = 90 * GiB;
  await until("writers go on", async () => (await held()).length === 0);
  await until("it has space", async () => condition(await get(), "NearlyFull") === "false");
  await until("it is not full", async () => condition(await get(), "Full") === "false");
  expect((await volume()).status.message).toBe("");
  await bench.clock.advance(5_000);
  expect(await events()).toEqual(
    expect.arrayContaining([
      "StoragePoolNearlyFull",
      "StoragePoolFull",
      "WritersWait",
      "WritersGoOn",
      "StoragePoolHasSpace",
    ]),
  );
});

test("nothing of a container that is to stop waits for space", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  bench.host.space.freeBytes = 0.1 * GiB;
  await until("writers wait", async () => (await held()).length === 1);
  await bench.patch("web", { power: "stopped" });
  await until("nothing waits", async () => (await held()).length === 0);
  await bench.clock.advance(10_000);
  expect(await held()).toEqual([]);
});

test("writers to a container's root wait as well, are told of, and go on; those of one that is to stop do not", async () => {
  await bench.createInstance("web");
  await bench.until("web", ({ status }) => status.state === "running");
  bench.host.space.freeBytes = 0.1 * GiB;
  await until("its root is held", async () => (await heldRoots()).length === 1);
  const root = async () =>
    (await bench.client.list(volumeKind, {})).items.find(({ spec }) => spec.role === "root");
  await until(
    "its root says so",
    async () => (await root())?.status.message.startsWith("writers wait") === true,
  );
  bench.host.space.freeBytes = 90 * GiB;
  await until("it goes on", async () => (await heldRoots()).length === 0);
  await until("its root says nothing", async () => (await root())?.status.message === "");
  await until("all is told", async () => (await events()).includes("WritersGoOn"));
  const told = (await bench.client.list(eventKind, { project: "default" })).items
    .filter(({ spec }) => /Writers/.test(spec.reason))
    .map(({ spec }) => `${spec.subject.kind} ${spec.subject.name}: ${spec.message}`);
  expect(told.sort()).toEqual([
    "Instance web: writers go on: its host has space again",
    "Instance web: writers wait: its host has no space left",
  ]);

  bench.host.space.freeBytes = 0.1 * GiB;
  await until("its root is held again", async () => (await heldRoots()).length === 1);
  await bench.patch("web", { power: "stopped" });
  await until("it has stopped", async () => (await heldRoots()).length === 0);
  await bench.clock.advance(10_000);
  expect(await heldRoots()).toEqual([]);
});

test("a host with much space is asked once, however many containers it has", async () => {
  for (const name of ["web", "lms", "wiki"]) await bench.createInstance(name);
  for (const name of ["web", "lms", "wiki"]) {
    await bench.until(name, ({ status }) => status.state === "running");
  }
  await bench.clock.advance(5_000);
  const asked: string[] = [];
  const { disks } = bench.host;
  const room = disks.room;
  disks.room = (uid) => {
    asked.push(uid);
    return room(uid);
  };
  await bench.clock.advance(10_000);
  await settle();
  expect(asked.length).toBeGreaterThan(2);
  expect(new Set(asked).size).toBe(1);
});

/** Writers that wait are let go by nobody but a daemon that sees space. */
test("whoever was told that writers wait is told when they go on, also by the next daemon", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  bench.host.space.freeBytes = 0.1 * GiB;
  await until("it is told", async () => (await events()).includes("WritersWait"));
  await bench.stopAgent();
  expect((await held()).length).toBe(1);
  expect(await events()).not.toContain("WritersGoOn");
  bench.host.space.freeBytes = 90 * GiB;
  bench.startAgent();
  await until("writers go on", async () => (await held()).length === 0);
  await until("that is told", async () => (await events()).includes("WritersGoOn"));
  await until("the volume says so", async () => (await volume()).status.message === "");
});

test("whoever is let go by something else than space is told as well", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  bench.host.space.freeBytes = 0.1 * GiB;
  await until("it is told", async () => (await events()).includes("WritersWait"));
  bench.host.space.freeBytes = 90 * GiB;
  bench.host.heldData.clear();
  await until("that is told", async () => (await events()).includes("WritersGoOn"));
});

test("a place that does not answer keeps nobody from the others, and its writers wait on", async () => {
  await create();
  await until("it is ready", isReady);
  await attached();
  const spec = { sizeMib: 120 * 1024, fileSystem: "ext4", instance: "web" };
  await bench.services.resources.create(bench.me, volumeKind, { project: "default", name: "other", spec });
  const other = () => bench.client.require(volumeKind, { project: "default", name: "other" });
  await until("the other is attached", async () => (await other()).status.state === "attached");
  const [silent, loud] = [(await volume()).metadata.uid, (await other()).metadata.uid];
  bench.host.silentData.add(silent);
  bench.host.space.freeBytes = 0.1 * GiB;
  await until("the other waits", async () => (await held()).includes(loud));
  expect(await held()).toEqual([loud]);

  await bench.host.disks.hold(silent, new AbortController().signal);
  bench.host.space.freeBytes = 90 * GiB;
  await until("the other goes on", async () => !(await held()).includes(loud));
  expect(await held()).toEqual([silent]);
});
