import { afterEach, beforeEach, expect, test } from "vitest";
import type { Json } from "../../core/json.ts";
import { groupKind } from "../../kinds/group.ts";
import { hostKind } from "../../kinds/host.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { systemPrincipal as me } from "../../services/principal.ts";
import { GroupWorldForTests } from "../groups/testing.ts";
import { subjectOf } from "./signals.ts";

let world: GroupWorldForTests;

beforeEach(async () => {
  world = await GroupWorldForTests.start(4_096);
});

afterEach(() => world.stop());

const project = "default";
const quick = { inStabilizationSeconds: 0, inCooldownSeconds: 0 };
const jobs = { type: "target", name: "jobs", metric: "custom/jobs", target: 10 } as Json;

async function push(name: string, value: number): Promise<void> {
  const group = await world.group(name);
  const at = world.clock.now();
  world.metrics.record([{ ...subjectOf(groupKind, group), metric: "custom/jobs", at, value }]);
  await world.pass(0);
  await world.ready(name);
}

const statusOf = async (name: string) => (await world.group(name)).status;

test("a sample makes members, and says who wanted them; a smaller one takes them away", async () => {
  await world.createGroup("web", { max: 8, policies: [jobs], behavior: quick });
  await world.ready("web");
  await push("web", 45);
  expect(await statusOf("web")).toMatchObject({ wanted: 5, desired: 5, ready: 5, state: "steady" });
  await world.pass(1_000);
  await push("web", 12);
  expect(await statusOf("web")).toMatchObject({ desired: 2, ready: 2 });
  expect(await world.members("web")).toHaveLength(2);
  const changes = (await world.decisions()).map(({ from, to, winner }) => [from, to, winner]);
  expect(changes).toEqual([
    [0, 1, "manual"],
    [1, 5, "jobs"],
    [5, 2, "jobs"],
  ]);
  expect((await world.decisions())[1]?.wants).toContainEqual({
    policy: "jobs",
    members: 5,
    reason: expect.stringContaining("custom/jobs"),
  });
});

test("stabilisation survives that nothing else happens: the group gets smaller when its time has come", async () => {
  const slow = { inStabilizationSeconds: 20, inCooldownSeconds: 0 };
  await world.createGroup("web", { max: 8, policies: [jobs], behavior: slow });
  await world.ready("web");
  await push("web", 45);
  await world.pass(5_000);
  await push("web", 12);
  expect((await statusOf("web")).desired).toBe(5);
  await world.pass(16_000);
  expect((await statusOf("web")).desired).toBe(2);
});

test("held requests wake a group from nothing", async () => {
  await world.createGroup("web", { min: 0, max: 8, policies: [jobs] });
  await push("web", 0);
  expect(await statusOf("web")).toMatchObject({ desired: 0, state: "steady", members: 0 });
  const spec = { listeners: [{ port: 8_080 }], group: "web", targetPort: 80 };
  const front = await world.services.resources.create(me, loadBalancerKind, { project, name: "front", spec });
  await world.services.resources.patchStatus(
    me,
    loadBalancerKind,
    { project, name: "front" },
    front.metadata.uid,
    { held: 2 },
  );
  await world.pass(0);
  await world.ready("web");
  expect(await statusOf("web")).toMatchObject({ desired: 1, ready: 1 });
  expect((await world.decisions()).at(-1)).toMatchObject({ winner: "held", from: 0, to: 1 });
});

test("a calendar's boundary needs nobody to look", async () => {
  const from = new Date(world.clock.now() + 3_600_000).toISOString().slice(0, 19);
  const until = new Date(world.clock.now() + 7_200_000).toISOString().slice(0, 19);
  const calendar = { events: [{ name: "rush", from, until, min: 4 }] };
  await world.createGroup("web", {
    max: 8,
    behavior: quick,
    policies: [{ type: "calendar", name: "term", calendar }],
  });
  await world.ready("web");
  expect((await statusOf("web")).desired).toBe(1);
  await world.pass(3_600_000);
  await world.ready("web");
  expect(await statusOf("web")).toMatchObject({ desired: 4, ready: 4 });
  await world.pass(3_600_000);
  expect(await statusOf("web")).toMatchObject({ desired: 1, ready: 1 });
});

test("what a group lends is taken gently, is never promised twice, and comes back", async () => {
  await world.createGroup("low", { min: 2, max: 8, desired: 6, behavior: quick });
  await world.ready("low");
  await world.createGroup("high", { min: 1, max: 6, priority: 5, behavior: quick });
  await world.ready("high");
  await world.patchGroup("high", { desired: 5 });
  await world.ready("high");
  expect(await statusOf("high")).toMatchObject({ desired: 5, ready: 5, state: "steady" });
  const low = await statusOf("low");
  expect(low).toMatchObject({ wanted: 6, desired: 3, lent: 3, state: "short", ready: 3 });
  expect(low.message).toContain("3 of 6: 3 lent to high");
  expect((await world.decisions()).flatMap(({ limits }) => limits).join()).toContain("lent to");
  await world.patchGroup("high", { desired: 1 });
  await world.ready("low");
  expect(await statusOf("low")).toMatchObject({ desired: 6, lent: 0, ready: 6, state: "steady" });
});

test("a lender gets nothing back right after it gave, also when controllers start anew; then all of it", async () => {
  const slow = { inStabilizationSeconds: 60, inCooldownSeconds: 0 };
  await world.createGroup("low", { min: 2, max: 8, desired: 6, behavior: slow });
  await world.ready("low");
  await world.createGroup("high", { min: 1, max: 6, priority: 5, desired: 5, behavior: quick });
  await world.ready("high");
  expect(await statusOf("low")).toMatchObject({ desired: 3, lent: 3 });
  await world.patchGroup("high", { desired: 1 });
  await world.ready("high");
  await world.stop();
  world.startControllers();
  await world.pass(50_000);
  expect(await statusOf("low")).toMatchObject({
    desired: 3,
    lent: 0,
    state: "short",
    message: "3 of 6: it gave members back to others less than 60 s ago",
  });
  await world.pass(10_000);
  await world.ready("low");
  expect(await statusOf("low")).toMatchObject({ desired: 6, ready: 6, state: "steady" });
});

test("who takes waits until the lender's members are gone, and says so", async () => {
  await world.createGroup("low", { min: 1, max: 8, desired: 7, behavior: quick, drainSeconds: 60 });
  await world.ready("low");
  const spec = { listeners: [{ port: 8_080 }], group: "low", targetPort: 80 };
  const front = await world.services.resources.create(me, loadBalancerKind, { project, name: "front", spec });
  const ref = { project, name: "front" };
  const servers = Object.fromEntries(
    (await world.members("low")).map(({ metadata }) => [metadata.uid, { state: "up" }]),
  );
  await world.services.resources.patchStatus(me, loadBalancerKind, ref, front.metadata.uid, { servers });
  await world.createGroup("high", { min: 1, max: 8, priority: 5, desired: 4, behavior: quick });
  await world.ready("high");
  expect(await statusOf("high")).toMatchObject({
    desired: 1,
    state: "short",
    message: "1 of 4: the others wait until capacity is given back",
  });
  expect(
    (await world.members("low")).filter(({ status }) => status.member?.phase === "draining"),
  ).toHaveLength(3);
  await world.pass(61_000);
  await world.ready("high");
  expect(await statusOf("high")).toMatchObject({ desired: 4, ready: 4, state: "steady" });
  expect(await statusOf("low")).toMatchObject({ desired: 4, lent: 3 });
});

test("capacity that comes up is used by who waits for it; a host that is cordoned takes nothing away", async () => {
  await world.createGroup("web", { min: 2, max: 16, desired: 12 });
  await world.ready("web");
  expect(await statusOf("web")).toMatchObject({ desired: 8, state: "short", lent: 0 });
  expect((await statusOf("web")).message).toContain("lack capacity for 4");
  await world.services.resources.patch(me, hostKind, { name: "alpha" }, { spec: { cordoned: true } });
  await world.pass(1_000);
  expect(await statusOf("web")).toMatchObject({ desired: 8, ready: 8 });
  await world.services.resources.patch(me, hostKind, { name: "alpha" }, { spec: { cordoned: false } });
  const host = await world.services.resources.require(me, hostKind, { name: "alpha" });
  const allocatable = { cpus: 1_000, memoryMib: 8_192, diskMib: 100_000 };
  await world.services.resources.patchStatus(me, hostKind, { name: "alpha" }, host.metadata.uid, {
    allocatable,
  });
  await world.pass(1_000);
  await world.ready("web");
  expect(await statusOf("web")).toMatchObject({ desired: 12, ready: 12, state: "steady" });
});

test("controllers that start anew keep what there is, and go on", async () => {
  await world.createGroup("web", { min: 3, max: 8, policies: [jobs], warm: 1 });
  await world.ready("web");
  const names = (await world.members("web")).map(({ metadata }) => metadata.name).sort();
  expect(names).toHaveLength(4);
  await world.stop();
  world.startControllers();
  await world.pass(60_000);
  expect((await world.members("web")).map(({ metadata }) => metadata.name).sort()).toEqual(names);
  await push("web", 42);
  expect(await statusOf("web")).toMatchObject({ desired: 5, ready: 5 });
});

test("controllers that start anew on a full host take no minimum for a group that does not lend", async () => {
  await world.createGroup("web", { min: 3, max: 8 });
  await world.ready("web");
  // Looked at first, because of its name; it would keep whatever it once got.
  await world.createGroup("keeper", { min: 1, max: 16, desired: 12, lends: false });
  await world.ready("keeper");
  expect(await statusOf("keeper")).toMatchObject({ desired: 5, ready: 5, state: "short" });
  const names = (await world.members("web")).map(({ metadata }) => metadata.name).sort();
  const decisions = await world.decisions();
  await world.stop();
  world.startControllers();
  await world.pass(60_000);
  await world.ready("keeper");
  expect((await world.members("web")).map(({ metadata }) => metadata.name).sort()).toEqual(names);
  expect(await statusOf("web")).toMatchObject({ desired: 3, ready: 3, state: "steady" });
  expect(await statusOf("keeper")).toMatchObject({ desired: 5, ready: 5, state: "short" });
  expect(await world.decisions()).toEqual(decisions);
});

test("controllers that start anew on a full host make no warm members", async () => {
  await world.createGroup("web", { min: 3, max: 8, warm: 1 });
  await world.createGroup("shop", { min: 1, max: 16, desired: 12, priority: 3 });
  await world.ready("web");
  await world.ready("shop");
  const names = async () => (await world.members("web")).map(({ metadata }) => metadata.name).sort();
  const before = await names();
  expect(before).toHaveLength(3);
  await world.stop();
  const events = async () => (await world.store.list("/events/", { limit: 1_000 })).entries.length;
  const told = await events();
  world.startControllers();
  await world.pass(60_000);
  expect(await names()).toEqual(before);
  expect(await events()).toBe(told);
});
