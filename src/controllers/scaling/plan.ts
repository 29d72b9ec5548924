/** How many members a group is to have: what its policies want, within what the hosts can give. Pure. */
import { fromTimestamp, type Instant, toTimestamp } from "../../core/clock.ts";
import type { Group, GroupStatus } from "../../kinds/group.ts";
import { boundsAt } from "../../kinds/scaling/bounds.ts";
import { type Decision, decide } from "../../kinds/scaling/decide.ts";
import type { Signals } from "../../kinds/scaling/signals.ts";
import type { ScalingDecision } from "../../kinds/scaling-decision.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { GroupClaim, Verdict } from "./ledger.ts";
import type { PastWish } from "./recent-wishes.ts";

export interface ScalingWorld {
  key: string;
  /** Undefined when it is gone or going. */
  group: Group | undefined;
  /** That has its image, and so will have its members. */
  host: string | undefined;
  signals: Signals;
  recentWanted: readonly PastWish[];
  /** What the hosts' capacity leaves of a claim. */
  judge: (claim: GroupClaim) => Verdict;
}

export interface ScalingReport {
  wish: PastWish;
  claim: GroupClaim;
  status: Pick<GroupStatus, "wanted" | "desired" | "lent" | "shortage" | "scaledOutAt" | "scaledInAt">;
  /** When `desired` changes. */
  decision: ScalingDecision["spec"] | undefined;
  /** True: it waits for capacity that others give back. */
  waits: boolean;
}

export function planScaling(world: ScalingWorld, now: Instant): Plan<never, ScalingReport> {
  const { group, host, signals, recentWanted } = world;
  if (!group) return { status: undefined, actions: [] };
  const { spec, status } = group;
  const decision = decide({ spec, state: { ...pastOf(status), recentWanted }, signals, now });
  const claim = claimOf(world.key, host, group, { min: decision.bounds.min, wanted: decision.desired });
  const verdict = world.judge(claim);
  const desired = Math.min(verdict.granted, verdict.now);
  const waits = verdict.now < verdict.granted;
  const shortage = shortageOf(verdict, decision.desired);
  const change = desired - status.desired;
  const at = toTimestamp(now);
  return {
    status: {
      wish: { at: now, members: decision.wanted },
      claim: { ...claim, desired },
      status: {
        wanted: decision.wanted,
        desired,
        lent: verdict.lent,
        ...(shortage === undefined ? {} : { shortage }),
        ...(change > 0 ? { scaledOutAt: at } : keep("scaledOutAt", status)),
        ...(change < 0 ? { scaledInAt: at } : keep("scaledInAt", status)),
      },
      decision: change === 0 ? undefined : recordOf(group, decision, desired, shortage),
      waits,
    },
    actions: [],
    ...(decision.recheckAfterMs === undefined ? {} : { recheckAfterMs: Math.ceil(decision.recheckAfterMs) }),
  };
}

function pastOf({ desired, scaledOutAt, scaledInAt }: GroupStatus) {
  const out = scaledOutAt === undefined ? undefined : fromTimestamp(scaledOutAt);
  const into = scaledInAt === undefined ? undefined : fromTimestamp(scaledInAt);
  return {
    desired,
    ...(out === undefined ? {} : { scaledOutAt: out }),
    ...(into === undefined ? {} : { scaledInAt: into }),
  };
}

/**
 * Of a group that was not looked at since the start, as far as its status tells. What it has and lends, not what it may want:
 * others must not drain members for a wish that is not there any more.
 */
export function standingClaim(key: string, host: string | undefined, group: Group, now: Instant): GroupClaim {
  const { desired, lent } = group.status;
  return claimOf(key, host, group, { min: boundsAt(group.spec, now).min, wanted: desired + lent });
}

function claimOf(
  key: string,
  host: string | undefined,
  { metadata, spec, status }: Group,
  { min, wanted }: Pick<GroupClaim, "min" | "wanted">,
): GroupClaim {
  const { cpus, memoryMib } = spec.template;
  return {
    key,
    name: metadata.name,
    ...(metadata.project === undefined ? {} : { project: metadata.project }),
    uid: metadata.uid,
    host,
    min,
    usual: spec.min,
    wanted,
    warm: spec.warm,
    desired: status.desired,
    priority: spec.priority,
    lends: spec.lends,
    member: { cpus, memoryMib },
  };
}

function shortageOf({ granted, now, reason }: Verdict, wanted: number): string | undefined {
  // Names of other groups are as keys of the store there.
  if (granted < wanted && reason !== undefined) return reason.slice(0, 1024);
  return now < granted ? `${now} of ${granted}: the others wait until capacity is given back` : undefined;
}

function keep<K extends "scaledOutAt" | "scaledInAt">(name: K, status: GroupStatus) {
  return status[name] === undefined ? {} : { [name]: status[name] };
}

function recordOf(
  { metadata: { name, uid }, status }: Group,
  { wants, winner, limits }: Decision,
  to: number,
  shortage: string | undefined,
): ScalingDecision["spec"] {
  return {
    group: { name, uid },
    from: status.desired,
    to,
    wants: wants.slice(0, 20),
    winner,
    limits: [...limits, ...(shortage === undefined ? [] : [shortage])]
      .map((text) => text.slice(0, 300))
      .slice(0, 10),
  };
}
