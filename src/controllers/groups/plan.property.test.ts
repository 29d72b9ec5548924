import fc from "fast-check";
import { expect, test } from "vitest";
import { type Group, groupLimits } from "../../kinds/group.ts";
import { planGroup } from "./plan.ts";
import { revisionOf } from "./template.ts";
import { type MemberForm, testNow as now, testGroup, testWorld } from "./testing-plan.ts";
import type { GroupAction } from "./world.ts";

const base = testGroup();
const current = revisionOf(base.spec.template);
const stable = { revision: "old", template: { ...base.spec.template, cpus: 7 } };

/** Healthy, on its way, unwell for long, broken, late. */
const healths = {
  ready: { ready: true },
  starting: { ready: false, begunAt: now },
  unhealthy: { ready: false, readyAt: now - 900_000, since: now - 600_000 },
  failed: { ready: false, status: { state: "failed" as const } },
  late: { ready: false, begunAt: now - 900_000 },
};
type Health = keyof typeof healths;

const memberForms = fc
  .array(
    fc.record({
      health: fc.constantFrom<Health>("ready", "ready", "ready", "starting", "unhealthy", "failed", "late"),
      revision: fc.constantFrom(current, current, "old"),
      phase: fc.constantFrom("serving" as const, "serving" as const, "warm" as const),
      age: fc.integer({ min: 1, max: 1_000 }),
    }),
    { maxLength: 14 },
  )
  .map((all) =>
    all.map(({ health, age, ...form }, index) => ({
      name: `m${index}`,
      health,
      ...form,
      ...healths[health],
      createdAt: now - 1_000_000 - age,
    })),
  );

const groups = fc
  .record({
    desired: fc.integer({ min: 0, max: 8 }),
    warm: fc.integer({ min: 0, max: 3 }),
    maxSurge: fc.integer({ min: 1, max: 4 }),
    rollback: fc.boolean(),
    hasStable: fc.boolean(),
  })
  .map(({ desired, warm, maxSurge, rollback, hasStable }) =>
    testGroup(
      { min: 0, warm, update: { maxSurge, rollback } },
      { desired, ...(hasStable ? { stable } : {}) },
    ),
  );

type Form = MemberForm & { health: Health };

function removed(actions: readonly GroupAction[]): Set<string> {
  const gone = actions.filter(({ type }) => type === "remove") as Extract<GroupAction, { type: "remove" }>[];
  return new Set(gone.map(({ member }) => member.metadata.name));
}

test("one look never takes away who is needed, never makes too many, and does one thing with each", () => {
  fc.assert(
    fc.property(groups, memberForms, (group, forms: Form[]) => {
      const { actions } = planGroup(testWorld(group, forms), now);
      const { desired } = group.status;
      const gone = removed(actions);
      const touched = actions.flatMap((action) =>
        action.type === "remove" || action.type === "set-phase" ? [action.member.metadata.name] : [],
      );
      expect(new Set(touched).size).toBe(touched.length);
      const working = forms.filter((one) => one.phase === "serving" && one.health === "ready");
      const left = working.filter(({ name }) => !gone.has(name));
      expect(left.length).toBeGreaterThanOrEqual(Math.min(desired, working.length));
      const created = actions.flatMap((action) =>
        action.type === "create" && action.phase === "serving" ? [action.count] : [],
      );
      const promoted = actions.filter((action) => action.type === "set-phase" && action.phase === "serving");
      const sound = forms.filter(
        (one) => one.phase === "serving" && (one.health === "ready" || one.health === "starting"),
      );
      const more = (created[0] ?? 0) + promoted.length;
      // Where nothing is rolled back, what failed stays beside, to be looked at.
      if (more > 0 && group.spec.update.rollback)
        expect(sound.length + more).toBeLessThanOrEqual(desired + group.spec.update.maxSurge);
    }),
    { numRuns: 2_000 },
  );
});

test("with hosts that do what they are told, every group comes to rest with what is desired, of one version", () => {
  fc.assert(
    fc.property(groups, memberForms, (group, forms: Form[]) => {
      const rested = run(group, forms);
      const serving = rested.members.filter(({ phase }) => phase === "serving");
      expect(serving).toHaveLength(group.status.desired);
      expect(rested.members.filter(({ phase }) => phase === "warm")).toHaveLength(group.spec.warm);
      const versions = new Set(rested.members.map(({ revision }) => revision));
      if (group.spec.update.rollback || !rested.failed) expect(versions.size).toBeLessThanOrEqual(1);
    }),
    { numRuns: 1_000 },
  );
});

const longestRest = 60;

/** What is made becomes ready; what is removed is gone; what failed is remembered, as the controller does. */
function run(group: Group, forms: readonly Form[]): { members: Form[]; failed: boolean } {
  let members = [...forms];
  let status = group.status;
  let serial = 0;
  for (let round = 0; round < longestRest; round++) {
    const at = now + round * 1_000;
    const plan = planGroup(testWorld({ ...group, status }, members), at);
    if (plan.status) status = { ...status, ...plan.status };
    const { actions } = plan;
    const doing = actions.filter(({ type }) => type !== "note-ready");
    const idle = doing.length === 0 && members.every(({ health }) => health !== "starting");
    if (idle)
      return {
        members: members.filter(({ health }) => health === "ready"),
        failed: status.failedRevision !== undefined,
      };
    const gone = removed(actions);
    members = members
      .filter(({ name }) => !gone.has(name))
      .map((one) =>
        one.health === "starting" ? { ...one, ...healths.ready, health: "ready" as const } : one,
      );
    for (const action of doing) {
      if (action.type === "set-phase") {
        members = members.map((one) =>
          one.name === action.member.metadata.name ? { ...one, phase: action.phase } : one,
        );
      }
      if (action.type !== "create") continue;
      expect(action.count).toBeLessThanOrEqual(groupLimits.maxMembers);
      for (let count = 0; count < action.count; count++) {
        const { revision, phase } = action;
        members.push({ name: `n${serial++}`, revision, phase, health: "starting", ...healths.starting });
      }
    }
  }
  throw new Error("the group does not come to rest");
}
