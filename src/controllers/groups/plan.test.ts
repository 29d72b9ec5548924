import { describe, expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { Group } from "../../kinds/group.ts";
import { planGroup } from "./plan.ts";
import { revisionOf } from "./template.ts";
import {
  type MemberForm,
  testNow as now,
  testBalancer,
  testGroup,
  testMember,
  testWorld,
} from "./testing-plan.ts";
import type { GroupAction, GroupWorld } from "./world.ts";

/** Actions in short: `create 2 serving`, `remove a`, `draining a`. */
function shortly(action: GroupAction): string {
  switch (action.type) {
    case "create":
      return `create ${action.count} ${action.phase} ${action.revision}`;
    case "set-phase":
      return `${action.phase} ${action.member.metadata.name}`;
    case "finalize":
      return "finalize";
    default:
      return `${action.type} ${action.member.metadata.name}`;
  }
}

const plan = (world: GroupWorld, at = now) => {
  const { actions, status, recheckAfterMs } = planGroup(world, at);
  return { actions: actions.map(shortly), status, recheckAfterMs, raw: actions };
};
const named = (names: string, form: Partial<MemberForm> = {}): MemberForm[] =>
  [...names].map((name) => ({ name, ...form }));
const steady = testGroup();
const current = revisionOf(steady.spec.template);
const older = { name: "x", revision: "old" };

describe("as many as desired", () => {
  test.each<[string, Group, MemberForm[], string[]]>([
    ["none there", steady, [], [`create 3 serving ${current}`]],
    ["all there", steady, named("abc"), []],
    [
      "one is being deleted",
      steady,
      [...named("ab"), { name: "c", deleted: true }],
      [`create 1 serving ${current}`],
    ],
    ["one that starts counts", steady, [...named("ab"), { name: "c", ready: false, begunAt: now }], []],
    [
      "too many: the youngest goes",
      steady,
      [...named("abc"), { name: "d", createdAt: now - 1000 }],
      ["remove d"],
    ],
    [
      "too many: who is not ready goes before the youngest",
      steady,
      [...named("abc"), { name: "d", createdAt: now - 1000 }, { name: "e", ready: false, begunAt: now }],
      ["remove e", "remove d"],
    ],
    ["none desired", testGroup({ min: 0 }, { desired: 0 }), named("ab"), ["remove b", "remove a"]],
    [
      "a warm one is taken before one is made",
      steady,
      [...named("a"), { name: "w", phase: "warm" }],
      ["serving w", `create 1 serving ${current}`],
    ],
    [
      "who is just leaving comes back first",
      steady,
      [...named("ab"), { name: "d", phase: "draining", since: now }, { name: "w", phase: "warm" }],
      ["serving d", "remove w"],
    ],
  ])("%s", (_name, group, members, wanted) => {
    const world = testWorld(group, members, { balancers: [testBalancer({ d: "draining" })] });
    const without = testWorld(group, members);
    expect(plan(members.some((one) => one.phase === "draining") ? world : without).actions).toEqual(wanted);
  });

  test("no more than fifty start at once", () => {
    const group = testGroup({ max: 200 }, { desired: 100 });
    const starting = Array.from({ length: 30 }, (_, index) => ({
      name: `s${index}`,
      ready: false,
      begunAt: now,
    }));
    expect(plan(testWorld(group, starting)).actions).toEqual([`create 20 serving ${current}`]);
  });

  test("a member of a user's own making is adopted, with the version that its spec is", () => {
    const world = testWorld(steady, named("ab"));
    const foreign = testMember(steady, { name: "f" });
    const { member: _, ...status } = foreign.instance.status;
    const members = [...world.members, { ...foreign, instance: { ...foreign.instance, status } }];
    const { actions, raw } = plan({ ...world, members });
    expect(actions).toEqual(["adopt f"]);
    expect(raw[0]).toMatchObject({ revision: current });
  });
});

describe("who leaves", () => {
  const group = testGroup({ drainSeconds: 30 }, { desired: 1 });
  const leaving: MemberForm = { name: "b", phase: "draining", since: now - 10_000 };
  test("drains first where a balancer leads to it", () => {
    const world = testWorld(group, named("ab"), { balancers: [testBalancer({ a: "up", b: "up" })] });
    expect(plan(world).actions).toEqual(["draining b"]);
  });
  test.each([
    ["still has requests", "draining", []],
    ["is idle", "idle", ["remove b"]],
    ["is not noticed as leaving yet", "up", []],
  ] as const)("%s", (_name, state, wanted) => {
    const world = testWorld(group, [...named("a"), leaving], {
      balancers: [testBalancer({ a: "up", b: state })],
    });
    const { actions, recheckAfterMs } = plan(world);
    expect(actions).toEqual(wanted);
    expect(recheckAfterMs).toBe(20_000);
  });
  test("goes when its time is over, or when no balancer has it any more", () => {
    const busy = testWorld(group, [...named("a"), leaving], {
      balancers: [testBalancer({ a: "up", b: "draining" })],
    });
    expect(plan(busy, now + 20_000).actions).toEqual(["remove b"]);
    const forgotten = testWorld(group, [...named("a"), leaving], { balancers: [testBalancer({ a: "up" })] });
    expect(plan(forgotten).actions).toEqual(["remove b"]);
  });
  test("who is needed again does not go, even when it has finished", () => {
    const members = [...named("a"), { ...leaving, since: now - 60_000 }];
    const balancers = [testBalancer({ a: "up", b: "idle" })];
    const more = testGroup({ drainSeconds: 30 }, { desired: 2 });
    expect(plan(testWorld(more, members, { balancers })).actions).toEqual(["serving b"]);
  });
  test("of a group that is deleted: all, then the group", () => {
    const deleted = { ...steady, metadata: { ...steady.metadata, deletedAt: toTimestamp(now) } };
    const all = plan(testWorld(deleted, [...named("ab"), { name: "w", phase: "warm" }]));
    expect(all.actions).toEqual(["remove a", "remove b", "remove w"]);
    expect(all.status).toMatchObject({ state: "deleting", message: "3 members left" });
    expect(plan(testWorld(deleted, [{ name: "c", deleted: true }])).actions).toEqual([]);
    expect(plan(testWorld(deleted, [])).actions).toEqual(["finalize"]);
  });
});

describe("healing", () => {
  const gone = { name: "c", ready: false, readyAt: now - 60_000 };
  const unplaced = (name: string): MemberForm => ({
    name,
    ready: false,
    begunAt: undefined,
    status: { state: "pending", reason: "NoHost", host: undefined as never },
  });
  test.each<[string, MemberForm[], string[]]>([
    [
      "failed: at once",
      [...named("ab"), { ...gone, status: { state: "failed" } }],
      ["remove c", `create 1 serving ${current}`],
    ],
    ["not ready for a moment: nothing", [...named("ab"), { ...gone, since: now - 29_000 }], []],
    [
      "for too long: the successor first",
      [...named("ab"), { ...gone, since: now - 30_000 }],
      [`create 1 serving ${current}`],
    ],
    [
      "the successor starts",
      [...named("abd"), { ...gone, since: now - 30_000 }].map((one) =>
        one.name === "d" ? { ...one, ready: false, begunAt: now } : one,
      ),
      [],
    ],
    ["the successor works", [...named("abd"), { ...gone, since: now - 30_000 }], ["remove c"]],
    [
      "no host has room for a successor",
      [...named("ab"), unplaced("d"), { ...gone, since: now - 30_000 }],
      ["remove c"],
    ],
    [
      "never ready in time",
      [...named("ab"), { name: "c", ready: false, begunAt: now - 300_000 }],
      ["remove c", `create 1 serving ${current}`],
    ],
    [
      "all at once",
      named("abc", { ready: false, readyAt: now - 60_000, since: now - 30_000 }),
      ["remove b", "remove c", `create 3 serving ${current}`],
    ],
  ])("%s", (_name, members, wanted) => {
    expect(plan(testWorld(steady, members)).actions).toEqual(wanted);
  });

  test.each<[string, MemberForm[], string[]]>([
    ["silent for a moment: nothing", named("abc", { lostAt: now - 29_000 }), []],
    [
      "for too long: a successor elsewhere",
      [...named("ab"), { name: "c", lostAt: now - 30_000 }],
      [`create 1 serving ${current}`],
    ],
    [
      "no other host has room: what may be running stays",
      [...named("ab"), unplaced("d"), { name: "c", lostAt: now - 30_000 }],
      [],
    ],
    ["the successor works", [...named("abd"), { name: "c", lostAt: now - 30_000 }], ["remove c"]],
    ["all members at once", named("abc", { lostAt: now - 30_000 }), [`create 3 serving ${current}`]],
    ["its host is back: the successor goes", [...named("abc"), unplaced("d")], ["remove d"]],
    [
      "it had only begun: no failure of the template",
      [...named("abd"), { name: "c", ready: false, begunAt: now - 400_000, lostAt: now - 30_000 }],
      ["remove c"],
    ],
  ])("of who is lost with its host: %s", (_name, members, wanted) => {
    const { actions, raw } = plan(testWorld(steady, members));
    expect(actions).toEqual(wanted);
    expect(raw.some((action) => action.type === "remove" && action.failed)).toBe(false);
  });

  test("looks again when a silent host has been silent for too long", () => {
    const world = testWorld(steady, [...named("ab"), { name: "c", lostAt: now - 10_000 }]);
    expect(plan(world).recheckAfterMs).toBe(20_000);
  });

  test("after members failed, the next one waits, longer each time", () => {
    const waits = (count: number) => {
      const setbacks = { count, lastAt: now - 1_000, why: "c: it does not work" };
      return plan(testWorld(steady, named("ab"), { setbacks }));
    };
    expect(waits(1)).toMatchObject({ actions: [], recheckAfterMs: 4_000 });
    expect(waits(3)).toMatchObject({ actions: [], recheckAfterMs: 19_000 });
    expect(waits(30)).toMatchObject({ actions: [], recheckAfterMs: 599_000 });
    expect(waits(1).status?.message).toContain("members fail");
    const over = testWorld(steady, named("ab"), { setbacks: { count: 1, lastAt: now - 5_000, why: "" } });
    expect(plan(over).actions).toEqual([`create 1 serving ${current}`]);
  });
});

describe("an update", () => {
  const stable = { revision: "old", template: { ...steady.spec.template, cpus: 7 } };
  const updating = (spec: object = {}) => testGroup({ update: { maxSurge: 1, ...spec } }, { stable });
  const old = named("abc", { revision: "old" });
  test.each<[string, Group, MemberForm[], string[]]>([
    ["one more is made first", updating(), old, [`create 1 serving ${current}`]],
    ["two more with a surge of two", updating({ maxSurge: 2 }), old, [`create 2 serving ${current}`]],
    [
      "while it starts, all old ones stay",
      updating(),
      [...old, { name: "n", ready: false, begunAt: now }],
      [],
    ],
    ["when it works, an old one goes", updating(), [...old, { name: "n" }], ["remove c"]],
    [
      "not before it has settled",
      updating({ settleSeconds: 60 }),
      [...old, { name: "n", since: now - 59_000 }],
      [],
    ],
    [
      "then the next one is made",
      updating(),
      [...named("ab", { revision: "old" }), { name: "n" }],
      [`create 1 serving ${current}`],
    ],
    [
      "an old one that does not work goes first",
      updating(),
      [
        ...named("ab", { revision: "old" }),
        { name: "c", revision: "old", ready: false, readyAt: now - 9_000, since: now - 1_000 },
        { name: "n" },
      ],
      ["remove c"],
    ],
    [
      "a new one fails: back, and it goes",
      updating(),
      [...old, { name: "n", ready: false, begunAt: now - 300_000 }],
      ["remove n"],
    ],
  ])("%s", (_name, group, members, wanted) => {
    expect(plan(testWorld(group, members)).actions).toEqual(wanted);
  });

  test("that failed: the version before is made again, and the failed one is remembered", () => {
    const failed = testGroup(
      {},
      { stable, failedRevision: current, state: "stopped", message: "version x failed" },
    );
    const { actions, status } = plan(testWorld(failed, [...named("ab", { revision: "old" }), { name: "n" }]));
    expect(actions).toEqual(["create 1 serving old"]);
    expect(status).toMatchObject({
      state: "stopped",
      message: "version x failed",
      failedRevision: current,
      revision: "old",
    });
    const next = { ...failed, spec: { ...failed.spec, template: { ...failed.spec.template, cpus: 9 } } };
    const again = plan(testWorld(next, old));
    expect(again.status).toMatchObject({ state: "updating" });
    expect(again.status?.failedRevision).toBeUndefined();
  });

  test("that failed without rollback: nothing is replaced, what failed stays to be looked at", () => {
    const group = updating({ rollback: false });
    const { actions, status } = plan(
      testWorld(group, [...old, { name: "n", ready: false, begunAt: now - 300_000 }]),
    );
    expect(actions).toEqual([]);
    expect(status).toMatchObject({ state: "stopped", revision: "old", failedRevision: current });
  });

  test("is proven when all members have it and work", () => {
    const group = testGroup({}, { stable });
    expect(plan(testWorld(group, named("abc"))).status?.stable?.revision).toBe(current);
    expect(plan(testWorld(group, [...named("abc"), older])).status?.stable?.revision).toBe("old");
  });
});

describe("warm members", () => {
  const group = testGroup({ warm: 2 });
  test.each<[string, Partial<GroupWorld>, MemberForm[], string[]]>([
    [
      "are made after those that serve",
      {},
      named("a"),
      [`create 2 serving ${current}`, `create 2 warm ${current}`],
    ],
    [
      "are replaced when they are used",
      {},
      [...named("abc"), { name: "w", phase: "warm" }],
      [`create 1 warm ${current}`],
    ],
    [
      "go while capacity is short",
      { scarce: true },
      [...named("abc"), { name: "w", phase: "warm" }],
      ["remove w"],
    ],
    [
      "of an old version go once the new one works",
      {},
      [...named("abc"), ...named("vw", { phase: "warm", revision: "old" })],
      ["remove v", "remove w", `create 2 warm ${current}`],
    ],
    [
      "that fail are replaced",
      {},
      [
        ...named("abc"),
        { name: "w", phase: "warm" },
        { name: "v", phase: "warm", status: { state: "failed" } },
      ],
      ["remove v", `create 1 warm ${current}`],
    ],
  ])("%s", (_name, more, members, wanted) => {
    expect(plan(testWorld(group, members, more)).actions).toEqual(wanted);
  });
});
