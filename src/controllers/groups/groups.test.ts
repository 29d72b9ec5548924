import { afterEach, beforeEach, expect, test } from "vitest";
import { GroupWorldForTests, leaseMs } from "./testing.ts";

let world: GroupWorldForTests;

beforeEach(async () => {
  world = await GroupWorldForTests.start();
});

afterEach(() => world.stop());

test("a group gets its members, with owner, label and phase; more and fewer when it is resized; none when deleted", async () => {
  await world.createGroup("web", { min: 3, max: 5 });
  expect(await world.members("web")).toHaveLength(3);
  const [first] = await world.members("web");
  expect(first?.metadata).toMatchObject({
    name: expect.stringMatching(/^web-[0-9a-z]{5}$/),
    owner: { kind: "Group", name: "web" },
    labels: { "strata/group": "web" },
  });
  expect(first?.status.member).toMatchObject({ phase: "serving", revision: expect.any(String) });
  await world.ready("web");
  expect((await world.group("web")).status).toMatchObject({
    state: "steady",
    members: 3,
    ready: 3,
    desired: 3,
  });
  await world.patchGroup("web", { desired: 5 });
  await world.ready("web");
  expect(await world.members("web")).toHaveLength(5);
  await world.patchGroup("web", { desired: 3 });
  await world.pass(200_000);
  expect(await world.members("web")).toHaveLength(3);
  await world.deleteGroup("web");
  expect(await world.members("web")).toEqual([]);
  expect(await world.findGroup("web")).toBeUndefined();
});

test("a member that fails is replaced, and one that is deleted by hand", async () => {
  await world.createGroup("web", { min: 2, max: 2 });
  await world.ready("web");
  const [first, second] = await world.members("web");
  if (!first || !second) throw new Error("no members");
  await world.report(first, { state: "failed", message: "its disk is broken" });
  await world.ready("web");
  const names = (await world.members("web")).map(({ metadata }) => metadata.name);
  expect(names).toHaveLength(2);
  expect(names).not.toContain(first.metadata.name);
  await world.deleteMember(second);
  await world.ready("web");
  expect(await world.members("web")).toHaveLength(2);
  expect((await world.group("web")).status.state).toBe("steady");
});

test("members on a lost host get successors, which go again when the host is back", async () => {
  await world.createGroup("web", { min: 2, max: 2, healAfterSeconds: 60 });
  await world.ready("web");
  const names = async () => (await world.members("web")).map(({ metadata }) => metadata.name);
  const before = await names();
  await world.silence(leaseMs);
  expect(await names()).toEqual(before);
  await world.silence(60_000);
  expect(await world.members("web")).toHaveLength(4);
  expect((await world.group("web")).status).toMatchObject({ ready: 0, state: "short" });
  await world.pass(1_000);
  expect(await names()).toEqual(before);
  expect((await world.group("web")).status).toMatchObject({ ready: 2, state: "steady" });
});
