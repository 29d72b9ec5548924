import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { type Group, type GroupStatus, groupKind } from "../../kinds/group.ts";
import { noSignals } from "../../kinds/scaling/signals.ts";
import type { Verdict } from "./ledger.ts";
import { planScaling, type ScalingReport } from "./plan.ts";

const now = Date.UTC(2030, 0, 1);
const second = 1_000;
const windowSeconds = 60;

function groupOf(status: Partial<GroupStatus>, spec: object = {}): Group {
  return {
    kind: "Group",
    metadata: { name: "web", project: "p", uid: "u", revision: 1, generation: 1, labels: {} } as never,
    spec: groupKind.spec.parse({
      template: { type: "container", image: "debian" },
      min: 2,
      max: 10,
      desired: 8,
      behavior: { inStabilizationSeconds: windowSeconds, inCooldownSeconds: 0 },
      ...spec,
    }),
    status: { ...groupKind.initialStatus(), ...status },
  };
}

/** What is decided at `at`, when the hosts leave so many members for the group. */
function planned(group: Group, left: Partial<Verdict>, at = now) {
  const verdict = { granted: 8, lent: 0, ...left };
  const world = {
    key: "/groups/p/web",
    group,
    host: "alpha",
    signals: noSignals,
    recentWanted: [],
    judge: () => ({ now: verdict.granted, ...verdict }),
  };
  const plan = planScaling(world, at);
  return { ...(plan.status as ScalingReport), recheckAfterMs: plan.recheckAfterMs };
}

const ago = (seconds: number) => toTimestamp(now - seconds * second);

describe("who had to give members back", () => {
  test("gets some again only after the time of stabilisation", () => {
    const cut = planned(groupOf({ wanted: 8, desired: 8 }), {
      granted: 3,
      lent: 5,
      reason: "3 of 8: 5 lent",
    });
    expect(cut.status).toMatchObject({ desired: 3, shortage: "3 of 8: 5 lent", yieldedAt: toTimestamp(now) });
    const group = groupOf(cut.status);
    const held = planned(group, {}, now + second);
    expect(held).toMatchObject({ decision: undefined, waits: true, recheckAfterMs: 59 * second });
    expect(held.status).toMatchObject({
      desired: 3,
      lent: 0,
      shortage: "3 of 8: it gave members back to others less than 60 s ago",
    });
    const after = planned(group, {}, now + windowSeconds * second);
    expect(after).toMatchObject({ waits: false, decision: { from: 3, to: 8 } });
    expect(after.status.shortage).toBeUndefined();
  });

  test.each<[string, Partial<GroupStatus>, object, Partial<Verdict>, number]>([
    ["less is left: at once", { desired: 5, yieldedAt: ago(1) }, {}, { granted: 3 }, 3],
    ["its minimum: at once", { desired: 1, yieldedAt: ago(1) }, { min: 4 }, {}, 4],
    ["its minimum, as far as it goes", { desired: 1, yieldedAt: ago(1) }, { min: 4 }, { now: 2 }, 2],
    ["nothing was given back", { desired: 3, scaledInAt: ago(1) }, {}, {}, 8],
    ["it wants no more than it has", { desired: 3, yieldedAt: ago(1) }, { desired: 3 }, { granted: 3 }, 3],
    ["it wants fewer", { desired: 5, yieldedAt: ago(1) }, { desired: 2 }, { granted: 2 }, 2],
    [
      "no stabilisation",
      { desired: 3, yieldedAt: ago(0) },
      { behavior: { inStabilizationSeconds: 0 } },
      {},
      8,
    ],
  ])("%s", (_title, status, spec, left, desired) => {
    expect(planned(groupOf(status, spec), left).status.desired).toBe(desired);
  });

  test("getting smaller by its own wish, and waiting for others, is no giving back", () => {
    const smaller = planned(groupOf({ wanted: 8, desired: 8 }, { desired: 3 }), { granted: 3 });
    expect(smaller.status).toMatchObject({ desired: 3, scaledInAt: toTimestamp(now) });
    expect(smaller.status.yieldedAt).toBeUndefined();
    const waits = planned(groupOf({ wanted: 8, desired: 3 }), { granted: 8, now: 4 });
    expect(waits.status).toMatchObject({ desired: 4, scaledOutAt: toTimestamp(now) });
    expect(waits.status.yieldedAt).toBeUndefined();
  });

  test("however often the others change their minds, it does not go back and forth", () => {
    const steps = fc.array(
      fc.record({ afterMs: fc.integer({ min: 0, max: 40_000 }), granted: fc.integer({ min: 2, max: 8 }) }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(steps, (changes) => {
        let at = now;
        let group = groupOf({ wanted: 8, desired: 8 });
        let yieldedAt = Number.NEGATIVE_INFINITY;
        for (const { afterMs, granted } of changes) {
          at += afterMs;
          const before = group.status.desired;
          const { status } = planned(group, { granted }, at);
          expect(status.desired).toBeLessThanOrEqual(granted);
          if (status.desired < before) yieldedAt = at;
          if (status.desired > before) expect(at - yieldedAt).toBeGreaterThanOrEqual(windowSeconds * second);
          group = groupOf({ ...group.status, ...status });
        }
      }),
    );
  });
});
