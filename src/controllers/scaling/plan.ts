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

/** What of a group's status is written by this controller. */
type Sizes = Pick<
  GroupStatus,
  "wanted" | "desired" | "lent" | "shortage" | "scaledOutAt" | "scaledInAt" | "yieldedAt"
>;

export interface ScalingReport {
  wish: PastWish;
  claim: GroupClaim;
  status: Sizes;
  /** When `desired` changes. */
  decision: ScalingDecision["spec"] | undefined;
  /** True: it waits for capacity that others give back, or until it may have some again. */
  waits: boolean;
}

export function planScaling(world: ScalingWorld, now: Instant): Plan<never, ScalingReport> {
  const { group, host, signals, recentWanted } = world;
  if (!group) return { status: undefined, actions: [] };
  const { spec, status } = group;
  const decision = decide({ spec, state: { ...pastOf(status), recentWanted }, signals, now });
  const claim = claimOf(world.key, host, group, { min: decision.bounds.min, wanted: decision.desired });
  const verdict = world.judge(claim);
  const share = shareOf(group, decision, verdict, now);
  const { desired, shortage } = share;
  const ends = [decision.recheckAfterMs ?? [], share.recheckAfterMs ?? []].flat();
  return {
    status: {
      wish: { at: now, members: decision.wanted },
      claim: { ...claim, desired },
      status: {
        wanted: decision.wanted,
        desired,
        lent: verdict.lent,
        ...(shortage === undefined ? {} : { shortage }),
        ...changesOf(status, { desired, yielded: desired < Math.min(decision.desired, status.desired) }, now),
      },
      decision: desired === status.desired ? undefined : recordOf(group, decision, desired, shortage),
      waits: desired < verdict.granted,
    },
    actions: [],
    ...(ends.length === 0 ? {} : { recheckAfterMs: Math.ceil(Math.min(...ends)) }),
  };
}

interface Share {
  desired: number;
  shortage: string | undefined;
  recheckAfterMs?: number;
}

/**
 * What it gets of what the hosts have. Who had to give members back for others gets some again only after
 * `inStabilizationSeconds`, but for its minimum: the wishes of many groups change one after the other, and what is there for one
 * of them between two of these is not there to stay.
 */
function shareOf({ spec, status }: Group, decision: Decision, verdict: Verdict, now: Instant): Share {
  const possible = Math.min(verdict.granted, verdict.now);
  const { inStabilizationSeconds } = spec.behavior;
  const until = (instantOf(status.yieldedAt) ?? Number.NEGATIVE_INFINITY) + inStabilizationSeconds * 1000;
  const desired = Math.max(status.desired, Math.min(possible, decision.bounds.min));
  if (possible <= desired || now >= until) {
    return { desired: possible, shortage: shortageOf(verdict, decision.desired) };
  }
  const shortage = `${desired} of ${decision.desired}: it gave members back to others less than ${inStabilizationSeconds} s ago`;
  return { desired, shortage, recheckAfterMs: until - now };
}

/** Instants of the last changes, with this one. */
function changesOf(
  { desired: before, scaledOutAt, scaledInAt, yieldedAt }: GroupStatus,
  { desired, yielded }: { desired: number; yielded: boolean },
  now: Instant,
): Pick<Sizes, "scaledOutAt" | "scaledInAt" | "yieldedAt"> {
  const at = toTimestamp(now);
  const out = desired > before ? at : scaledOutAt;
  const into = desired < before ? at : scaledInAt;
  const back = yielded ? at : yieldedAt;
  return {
    ...(out === undefined ? {} : { scaledOutAt: out }),
    ...(into === undefined ? {} : { scaledInAt: into }),
    ...(back === undefined ? {} : { yieldedAt: back }),
  };
}

function instantOf(timestamp: string | undefined): Instant | undefined {
  return timestamp === undefined ? undefined : fromTimestamp(timestamp);
}

function pastOf({ desired, scaledOutAt, scaledInAt }: GroupStatus) {
  const out = instantOf(scaledOutAt);
  const into = instantOf(scaledInAt);
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
