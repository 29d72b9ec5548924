/** Volumes through API and agent, on simulated guests. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type AgentBench, agentBench } from "../../sim/agent-bench.ts";
import type { Uid } from "../core/ids.ts";
import { settle } from "../core/virtual-clock.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { type Snapshot, snapshotKind } from "../kinds/snapshot.ts";
import { type Volume, volumeKind } from "../kinds/volume.ts";

let bench: AgentBench;

beforeEach(async () => {
  bench = await agentBench();
  await bench.createImage();
});
afterEach(() => bench.stop());

const isRunning = (instance: Instance) => instance.status.state === "running";
const ref = (name: string) => ({ project: "default", name });
const volumesOf = (instance: Instance) => bench.host.world.guests.get(instance.metadata.uid)?.spec.volumes;

function create(name: string, spec: object = {}): Promise<Volume> {
  const draft = { ...ref(name), spec: { sizeMib: 64, fileSystem: "ext4", ...spec } };
  return bench.services.resources.create(bench.me, volumeKind, draft);
}

function patch(name: string, spec: object): Promise<Volume> {
  return bench.services.resources.patch(bench.me, volumeKind, ref(name), { spec: spec as never });
}

async function until(name: string, condition: (volume: Volume) => boolean): Promise<Volume> {
  for (let round = 0; round < 400; round++) {
    const volume = await bench.client.get(volumeKind, ref(name));
    if (volume && condition(volume)) return volume;
    await bench.clock.advance(50);
    await settle();
  }
  throw new Error(`volume ${name}: ${JSON.stringify(await bench.client.get(volumeKind, ref(name)))}`);
}

const inState = (state: Volume["status"]["state"]) => (volume: Volume) => volume.status.state === state;

test("a volume goes into a running guest, grows there, leaves it, and is removed", async () => {
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  const { metadata } = await create("data", { path: "/srv/data" });
  await patch("data", { instance: "web" });
  const attached = await until("data", inState("attached"));
  expect(attached.status).toMatchObject({ host: "alpha", instance: "web", device: "/srv/data", sizeMib: 64 });
  expect(volumesOf(web)).toEqual([expect.objectContaining({ id: metadata.uid, target: "/srv/data" })]);

  await patch("data", { sizeMib: 256 });
  await until("data", ({ status }) => status.sizeMib === 256);
  expect(bench.host.data.get(metadata.uid)).toEqual({ sizeMib: 256, use: "mounted" });

  await patch("data", { instance: null });
  const free = await until("data", inState("available"));
  expect(free.status).not.toHaveProperty("instance");
  expect(volumesOf(web)).toEqual([]);
  expect(bench.host.data.get(metadata.uid)?.use).toBe("free");

  await bench.services.resources.delete(bench.me, volumeKind, ref("data"));
  await bench.clock.advance(2_000);
  await settle();
  expect(await bench.client.get(volumeKind, ref("data"))).toBeUndefined();
  expect(bench.host.data.size).toBe(0);
});

test("one that is attached before the start is part of it", async () => {
  await bench.createInstance("web", { power: "stopped" });
  const { metadata } = await create("data", { instance: "web" });
  await bench.patch("web", { power: "running" });
  const web = await bench.until("web", isRunning);
  expect(volumesOf(web)?.map(({ id }) => id)).toEqual([metadata.uid]);
  await until("data", ({ status }) => status.state === "attached" && status.device === "/mnt/data");
});

test("one outlives its instance and goes to the next of that name only when asked to", async () => {
  await bench.createInstance("web");
  await bench.until("web", isRunning);
  const { metadata } = await create("data", { instance: "web" });
  await until("data", inState("attached"));
  await bench.services.resources.delete(bench.me, instanceKind, ref("web"));
  await until("data", inState("available"));
  expect(bench.host.data.has(metadata.uid)).toBe(true);
  await bench.createInstance("web");
  const next = await bench.until("web", isRunning);
  expect(volumesOf(next)).toBeUndefined();
});

test("an agent that is killed on the way goes on", async () => {
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  await create("data");
  bench.host.world.script({ verb: "attach-volume", effect: { type: "lose-answer" } });
  await patch("data", { instance: "web" });
  await until("data", inState("attached"));
  expect(volumesOf(web)).toHaveLength(1);
  bench.host.world.script({ verb: "detach-volume", effect: { type: "fail", code: "Conflict" } });
  await patch("data", { instance: null });
  const waiting = await until("data", ({ status }) => status.message.includes("trying again"));
  expect(waiting.status.instance).toBe("web");
  await until("data", inState("available"));
  expect(volumesOf(web)).toEqual([]);
});

async function snapshot(name: string): Promise<Snapshot> {
  const draft = { ...ref(name), spec: { volume: "data" } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  for (let round = 0; round < 200; round++) {
    const found = await bench.client.require(snapshotKind, ref(name));
    if (found.status.state !== "pending") return found;
    await bench.clock.advance(50);
    await settle();
  }
  throw new Error(`snapshot ${name} was not taken`);
}

test("a snapshot is taken of what is there, and volumes are made of it", async () => {
  await expect(snapshot("early")).rejects.toMatchObject({ code: "Invalid" });
  await bench.createInstance("web");
  await bench.until("web", isRunning);
  const { metadata } = await create("data");
  await expect(snapshot("early")).rejects.toMatchObject({ code: "Conflict" });
  await patch("data", { instance: "web" });
  await until("data", inState("attached"));
  const taken = await snapshot("monday");
  expect(taken.status).toMatchObject({
    state: "ready",
    consistency: "frozen",
    sizeMib: 64,
    fileSystem: "ext4",
  });
  expect(bench.host.data.get(taken.metadata.uid)).toEqual({ sizeMib: 64, use: "free" });

  const source = { snapshot: "monday" };
  await expect(create("small", { source, fileSystem: "xfs", sizeMib: 400 })).rejects.toMatchObject({
    code: "Invalid",
  });
  const copy = await create("copy", { source, sizeMib: 128, instance: "web" });
  await until("copy", inState("attached"));
  expect(bench.host.data.get(copy.metadata.uid)).toEqual({ sizeMib: 128, use: "mounted" });

  await bench.services.resources.delete(bench.me, snapshotKind, ref("monday"));
  await bench.clock.advance(2_000);
  await settle();
  expect([...bench.host.data.keys()].sort()).toEqual([metadata.uid, copy.metadata.uid].sort());
});

test("neither volumes nor snapshots are taken for orphans", async () => {
  await bench.createInstance("web");
  await bench.until("web", isRunning);
  await create("data", { instance: "web" });
  await until("data", inState("attached"));
  await snapshot("monday");
  await bench.clock.advance(30 * 60_000);
  await settle();
  expect(bench.host.data.size).toBe(2);
});

async function snapshotUntil(name: string, condition: (snapshot: Snapshot) => boolean): Promise<Snapshot> {
  for (let round = 0; round < 400; round++) {
    const found = await bench.client.get(snapshotKind, ref(name));
    if (found && condition(found)) return found;
    await bench.clock.advance(50);
    await settle();
  }
  throw new Error(`snapshot ${name}: ${JSON.stringify(await bench.client.get(snapshotKind, ref(name)))}`);
}

async function withSnapshot(): Promise<{ web: Instance; data: Volume; taken: Snapshot }> {
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  const data = await create("data", { instance: "web", path: "/srv/data" });
  await until("data", inState("attached"));
  const draft = { ...ref("before"), spec: { instance: "web" } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  const taken = await snapshotUntil("before", ({ status }) => status.state === "ready");
  return { web, data, taken };
}

const rollBack = (rollbacks: number) =>
  bench.services.resources.patch(bench.me, snapshotKind, ref("before"), { spec: { rollbacks } });

test("a snapshot of an instance has its root and its volumes, and a new instance is made of it", async () => {
  const { web, data, taken } = await withSnapshot();
  const root = await bench.client.require(volumeKind, ref("web-root"));
  expect(taken.status).toMatchObject({
    consistency: "frozen",
    rootUid: root.metadata.uid,
    imageDigest: web.status.imageDigest,
    volumes: [{ name: "data", uid: data.metadata.uid, sizeMib: 64, fileSystem: "ext4", path: "/srv/data" }],
  });
  const parts = [...(bench.host.parts.get(taken.metadata.uid)?.keys() ?? [])];
  expect(parts.sort()).toEqual([root.metadata.uid, data.metadata.uid].sort());

  const { type, image } = web.spec;
  const spec = { type, image, diskMib: web.spec.diskMib, source: { snapshot: "before" } };
  await bench.services.resources.create(bench.me, instanceKind, { ...ref("twin"), spec });
  const twin = await bench.until("twin", isRunning);
  expect(twin.status.nic?.macAddress).not.toBe(web.status.nic?.macAddress);
  expect(volumesOf(twin)).toEqual([expect.objectContaining({ target: "/srv/data" })]);
  const copy = await until("twin-data", inState("attached"));
  expect(copy.metadata.uid).not.toBe(data.metadata.uid);
  await bench.clock.advance(30 * 60_000);
  await settle();
  expect(bench.host.parts.has(taken.metadata.uid)).toBe(true);
});

/** A snapshot whose disks are being copied while the guest goes on. */
async function copyingSnapshot(): Promise<{ web: Instance; taken: Snapshot }> {
  bench.host.sharesBlocks = false;
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  const draft = { ...ref("before"), spec: { instance: "web" } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  const taken = await snapshotUntil("before", ({ status }) => status.state === "copying");
  expect(bench.host.parts.has(taken.metadata.uid)).toBe(false);
  expect(taken.status).toMatchObject({ consistency: "frozen", stillMs: 1, volumes: [] });
  await expect(rollBack(1)).rejects.toMatchObject({ code: "Conflict" });
  return { web, taken };
}

test("disks that share no blocks are copied while the guest goes on, and the snapshot is ready after that", async () => {
  const { web, taken } = await copyingSnapshot();
  const ready = await snapshotUntil("before", ({ status }) => status.state === "ready");
  expect(ready.status).toMatchObject({ message: "", takenAt: taken.status.takenAt });
  expect(bench.host.parts.has(taken.metadata.uid)).toBe(true);
  expect((await bench.until("web", isRunning)).status.startedAt).toBe(web.status.startedAt);
  await settle();
  expect(bench.host.world.copies.size).toBe(0);
});

test("what was being copied when its guest ended is taken anew, and says so", async () => {
  const { web, taken } = await copyingSnapshot();
  bench.host.world.end(web.metadata.uid as Uid, "crash", "killed by this test");
  const ready = await snapshotUntil("before", ({ status }) => status.state === "ready");
  expect(ready.status).toMatchObject({ cutOff: 1, message: expect.stringContaining("cut off once") });
  expect(ready.status.takenAt).not.toBe(taken.status.takenAt);
  expect(bench.host.parts.has(taken.metadata.uid)).toBe(true);
});

test("a guest that ends as soon as all is copied changes nothing of what the snapshot says", async () => {
  const { web, taken } = await copyingSnapshot();
  bench.host.world.script({ verb: "forget", uid: web.metadata.uid as Uid, effect: { type: "fail" } });
  await snapshotUntil("before", ({ status }) => status.state === "ready");
  await bench.clock.advance(5_000);
  await settle();
  const { status } = await bench.client.require(snapshotKind, ref("before"));
  expect(status).toMatchObject({ state: "ready", message: "", takenAt: taken.status.takenAt });
  // What is left to forget goes with the snapshot.
  expect(bench.host.world.copies.size).toBe(1);
  await bench.services.resources.delete(bench.me, snapshotKind, ref("before"));
  await bench.clock.advance(1_000);
  await settle();
  expect(bench.host.world.copies.size).toBe(0);
});

test("one that is being copied is deleted at once, and nothing of it goes on", async () => {
  const { taken } = await copyingSnapshot();
  await bench.services.resources.delete(bench.me, snapshotKind, ref("before"));
  await bench.clock.advance(100);
  await settle();
  expect(await bench.client.get(snapshotKind, ref("before"))).toBeUndefined();
  expect(bench.host.world.copies.size).toBe(0);
  expect(bench.host.parts.has(taken.metadata.uid)).toBe(false);
});

test("an instance is stopped, put back to its snapshot, and started again", async () => {
  const { web, data, taken } = await withSnapshot();
  const { runId } = bench.host.world.guests.get(web.metadata.uid) ?? {};
  await rollBack(1);
  const back = await snapshotUntil("before", ({ status }) => status.rollbacks === 1);
  expect(back.status).toMatchObject({ state: "ready", message: "" });
  const from = taken.metadata.uid;
  expect(bench.host.restored).toEqual([
    { from, uid: taken.status.rootUid },
    { from, uid: data.metadata.uid },
  ]);
  await bench.until("web", isRunning);
  expect(bench.host.world.guests.get(web.metadata.uid)?.runId).not.toBe(runId);
  await expect(rollBack(0)).rejects.toMatchObject({ code: "Invalid" });
});

test("what the instance has no more is not put back, and an instance that is gone is refused", async () => {
  const { taken } = await withSnapshot();
  await patch("data", { instance: null });
  await until("data", inState("available"));
  await rollBack(1);
  await snapshotUntil("before", ({ status }) => status.rollbacks === 1);
  expect(bench.host.restored).toEqual([{ from: taken.metadata.uid, uid: taken.status.rootUid }]);
  await bench.services.resources.delete(bench.me, instanceKind, ref("web"));
  await expect(rollBack(2)).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("gone"),
  });
});

/** A snapshot with memory of a guest that had "then" in mind, and has "now" since. */
async function withMemory(): Promise<{ web: Instance; taken: Snapshot }> {
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  think(web, "then");
  const draft = { ...ref("before"), spec: { instance: "web", memory: true } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  const taken = await snapshotUntil("before", ({ status }) => status.state === "ready");
  think(web, "now");
  return { web, taken };
}

const guestOf = ({ metadata }: Instance) => bench.host.world.require(metadata.uid as Uid);
const think = (instance: Instance, thought: string) => {
  guestOf(instance).thought = thought;
};
const settledMemory = ({ status }: Snapshot) =>
  status.memoryUse !== undefined && status.memoryUse !== "waiting";

test("an instance goes on where it was when its memory was kept, as often as it is put back", async () => {
  const { web, taken } = await withMemory();
  expect(taken.status).toMatchObject({ memoryBytes: expect.any(Number), message: "", stillMs: 1 });
  for (const rollbacks of [1, 2]) {
    await rollBack(rollbacks);
    const back = await snapshotUntil(
      "before",
      (one) => one.status.rollbacks === rollbacks && settledMemory(one),
    );
    expect(back.status).toMatchObject({ state: "ready", memoryUse: "resumed", message: "" });
    expect(guestOf(web).thought).toBe("then");
    think(web, "later");
  }
  await bench.patch("web", { restarts: 1 });
  await bench.until("web", ({ status }) => status.observedRestarts === 1 && status.state === "running");
  expect(guestOf(web).thought).toBe("");
});

test("one that is stopped stays so, and goes on with its next start", async () => {
  const { web } = await withMemory();
  await bench.patch("web", { power: "stopped" });
  await bench.until("web", ({ status }) => status.state === "stopped");
  await rollBack(1);
  const back = await snapshotUntil("before", ({ status }) => status.rollbacks === 1);
  expect(back.status).toMatchObject({ memoryUse: "waiting", message: expect.stringContaining("next start") });
  await bench.patch("web", { power: "running" });
  await snapshotUntil("before", ({ status }) => status.memoryUse === "resumed");
  expect(guestOf(web).thought).toBe("then");
});

test("one that would be another machine boots, and the snapshot says why", async () => {
  const { web } = await withMemory();
  await bench.patch("web", { cpus: 3 });
  await bench.until("web", ({ status }) => status.size?.cpus === 3);
  await rollBack(1);
  const back = await snapshotUntil("before", settledMemory);
  expect(back.status).toMatchObject({
    memoryUse: "booted",
    message: expect.stringContaining("another machine"),
  });
  expect(guestOf(web).thought).toBe("");
});

test("memory is not loaded without a volume that it knows of", async () => {
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  await create("data", { instance: "web" });
  await until("data", inState("attached"));
  const draft = { ...ref("before"), spec: { instance: "web", memory: true } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  await snapshotUntil("before", ({ status }) => status.state === "ready");
  await patch("data", { instance: null });
  await until("data", inState("available"));
  await rollBack(1);
  const back = await snapshotUntil("before", settledMemory);
  expect(back.status).toMatchObject({
    memoryUse: "booted",
    message: expect.stringContaining('volume "data"'),
  });
  await bench.until("web", isRunning);
  expect(guestOf(web).memory).toBeUndefined();
});

test("memory that was put back does not outlast another rollback of its disks", async () => {
  const { web } = await withMemory();
  await bench.services.resources.create(bench.me, snapshotKind, {
    ...ref("plain"),
    spec: { instance: "web" },
  });
  await snapshotUntil("plain", ({ status }) => status.state === "ready");
  await bench.patch("web", { power: "stopped" });
  await bench.until("web", ({ status }) => status.state === "stopped");
  await rollBack(1);
  await snapshotUntil("before", ({ status }) => status.memoryUse === "waiting");
  await bench.services.resources.patch(bench.me, snapshotKind, ref("plain"), { spec: { rollbacks: 1 } });
  await snapshotUntil("plain", ({ status }) => status.rollbacks === 1);
  const back = await snapshotUntil("before", settledMemory);
  expect(back.status).toMatchObject({
    memoryUse: "booted",
    message: expect.stringContaining("something else"),
  });
  await bench.patch("web", { power: "running" });
  await bench.until("web", isRunning);
  expect(guestOf(web).thought).toBe("");
});

test.each(["put-back", "leave"] as const)(
  "an agent that is cut off at %s repeats all of it",
  async (verb) => {
    const { web } = await withMemory();
    bench.host.world.script({ verb, effect: { type: "lose-answer" } });
    await rollBack(1);
    await snapshotUntil("before", settledMemory);
    expect(guestOf(web).thought).toBe("then");
  },
);

test.each(
  (["leave", "put-back", "start", "copy"] as const).flatMap((verb) =>
    (["before", "after"] as const).map((when) => ({ verb, when })),
  ),
)("an agent that is killed $when $verb is followed by one that completes it", async ({ verb, when }) => {
  const killAt = async () => {
    let crashed = false;
    bench.host.world.script({ verb, effect: { type: "crash", when } });
    const { call } = bench.host.world;
    const spy = vi.spyOn(bench.host.world, "call").mockImplementation((...args) => {
      crashed ||= args[0] === verb;
      return call.apply(bench.host.world, args) as never;
    });
    return async () => {
      await bench.waitFor(verb, () => crashed);
      spy.mockRestore();
      bench.killAgent();
      bench.startAgent();
    };
  };
  await bench.createInstance("web");
  const web = await bench.until("web", isRunning);
  think(web, "then");
  const draft = { ...ref("before"), spec: { instance: "web", memory: true } };
  const taking = verb === "copy" ? await killAt() : async () => {};
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  await taking();
  await snapshotUntil("before", ({ status }) => status.state === "ready");
  think(web, "now");
  const going = verb === "copy" ? async () => {} : await killAt();
  await rollBack(1);
  await going();
  const { status } = await snapshotUntil("before", settledMemory);
  expect(status).toMatchObject({ memoryUse: "resumed", rollbacks: 1 });
  await bench.until("web", isRunning);
  expect(guestOf(web).thought).toBe("then");
});

test("an instance that does not run has no memory to keep, and the snapshot says so", async () => {
  await bench.createInstance("web");
  await bench.until("web", isRunning);
  await bench.patch("web", { power: "stopped" });
  await bench.until("web", ({ status }) => status.state === "stopped");
  const draft = { ...ref("before"), spec: { instance: "web", memory: true } };
  await bench.services.resources.create(bench.me, snapshotKind, draft);
  const { status } = await snapshotUntil("before", (one) => one.status.state === "ready");
  expect(status).toMatchObject({ consistency: "unused", message: expect.stringContaining("did not run") });
  expect(status).not.toHaveProperty("memoryBytes");
});
