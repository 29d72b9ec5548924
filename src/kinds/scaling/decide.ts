/**
 * How many members a group is to have: every policy says what it wants, the largest wish wins within min and max as the
 * calendars have them now, and then come stabilisation, cool-downs and steps. What capacity leaves of it is the arbiter's.
 *
 * - A change of the bounds themselves counts at once: a minimum that rises, or a maximum that falls, waits for nothing.
 * - Held requests wake a group from zero at once.
 * - While a metric of any policy is missing or stale, the group does not get smaller, unless a maximum says so.
 * - To zero it goes only when the minimum is zero and no wish is greater. An average over serving members (cpu, memory,
 *   latency) cannot tell that nobody needs them; so it stands back when every total (requests, queue, custom) says zero.
 *
 * Pure: the same input gives the same answer.
 */
import type { Instant } from "../../core/clock.ts";
import type { GroupSpec } from "../group.ts";
import { type Bounds, boundsAt, nextBoundsChange } from "./bounds.ts";
import type { Signals } from "./signals.ts";
import { type WeighedWish, type Wish, wishesOf } from "./wishes.ts";

export type { Signals } from "./signals.ts";
export type { Wish } from "./wishes.ts";

export interface ScalingState {
  /** What the group is to have until now: `status.desired`. */
  desired: number;
  /** Of the last change of `desired` up and down. */
  scaledOutAt?: Instant;
  scaledInAt?: Instant;
  /**
   * `wanted` of earlier decisions, in any order. Only those within `inStabilizationSeconds` count. Whoever has lost them (a
   * daemon that was restarted) gives `desired` at the present time instead: the group then gets smaller a little later.
   */
  recentWanted: readonly { at: Instant; members: number }[];
}

export interface DecisionInput {
  spec: GroupSpec;
  state: ScalingState;
  signals: Signals;
  now: Instant;
}

export interface Decision {
  /** The largest wish within min and max: what belongs into `recentWanted` and `status.wanted`. */
  wanted: number;
  /** What it is to have now; always within min and max. */
  desired: number;
  /** Of every policy, `manual` first. */
  wants: Wish[];
  /** The policy whose wish was the largest; of several alike, the first. */
  winner: string;
  /** What then changed the winner's number, in words. */
  limits: string[];
  /** Min and max that were in force. */
  bounds: Bounds;
  /** Decide again after so long, even if no signal changes. Undefined: only when one does. */
  recheckAfterMs?: number;
}

interface Pace {
  desired: number;
  limits: string[];
  /** Instants at which a limit ends. */
  ends: Instant[];
}

export function decide(input: DecisionInput): Decision {
  const { spec, state, signals, now } = input;
  const bounds = boundsAt(spec, now);
  const { desired } = state;
  const wishes = withoutIdleAverages(wishesOf({ spec, desired, bounds, signals, now }), desired);
  const winner = wishes.reduce((best, wish) => ((wish.members ?? -1) > (best.members ?? -1) ? wish : best));
  const limits: string[] = [];
  let largest = winner.members ?? bounds.min;
  const blind = wishes.find((wish) => wish.blind);
  if (blind && largest < desired) {
    limits.push(`not fewer than ${desired} while ${blind.policy} cannot see: ${blind.reason}`);
    largest = desired;
  }
  const wanted = clamped(largest, bounds, limits);
  const pace = wanted > desired ? paceOut(input, bounds, wanted) : paceIn(input, bounds, wanted);
  const ends = [...pace.ends, nextBoundsChange(spec, now) ?? []].flat();
  return {
    wanted,
    desired: pace.desired,
    wants: wishes.map(toWish),
    winner: winner.policy,
    limits: [...limits, ...pace.limits],
    bounds,
    ...(ends.length === 0 ? {} : { recheckAfterMs: Math.max(1, Math.min(...ends) - now) }),
  };
}

/**
 * An average that wants one or none says: one is enough. It says nothing at all when there are totals and all of them say
 * zero, or when there is no member.
 */
function withoutIdleAverages(wishes: readonly WeighedWish[], desired: number): WeighedWish[] {
  const totals = wishes.filter((wish) => wish.metric === "total");
  const idle = totals.length > 0 && totals.every((wish) => wish.members === 0);
  return wishes.map((wish): WeighedWish => {
    if (wish.metric !== "average" || wish.members === undefined || wish.members > 1) return wish;
    if (!idle && desired > 0) return { ...wish, members: 1 };
    const { members: _, ...silent } = wish;
    return { ...silent, reason: `${wish.reason}; nothing is asked for` };
  });
}

function clamped(members: number, { min, max, events }: Bounds, limits: string[]): number {
  const because = events.length === 0 ? "" : ` (${events.join(", ")})`;
  if (members > max) limits.push(`at most ${max}${because}`);
  if (members < min) limits.push(`at least ${min}${because}`);
  return Math.max(min, Math.min(max, members));
}

/** Up to `wanted`, at the pace that spec.behavior allows. */
function paceOut({ spec, state, signals, now }: DecisionInput, bounds: Bounds, wanted: number): Pace {
  const { outStep, outCooldownSeconds } = spec.behavior;
  const cooldownMs = outCooldownSeconds * 1000;
  const woken = state.desired === 0 && signals.held > 0 ? 1 : 0;
  const atOnce = Math.min(wanted, Math.max(state.desired, bounds.min, woken));
  if (atOnce === wanted) return { desired: wanted, limits: [], ends: [] };
  const cooldownEnd = (state.scaledOutAt ?? Number.NEGATIVE_INFINITY) + cooldownMs;
  if (now < cooldownEnd) {
    return {
      desired: atOnce,
      limits: [`not more for ${secondsUntil(cooldownEnd, now)} s: cool-down`],
      ends: [cooldownEnd],
    };
  }
  const desired = Math.max(atOnce, Math.min(wanted, state.desired + outStep));
  if (desired === wanted) return { desired, limits: [], ends: [] };
  return {
    desired,
    limits: [`at most ${outStep} more at once`],
    ends: [now + Math.max(shortestRecheckMs, cooldownMs)],
  };
}

/** A limit that leaves nothing to wait for is looked at again after this. */
const shortestRecheckMs = 1000;

/** Down to `wanted`, at the pace that spec.behavior allows. */
function paceIn({ spec, state, now }: DecisionInput, bounds: Bounds, wanted: number): Pace {
  const { inStep, inCooldownSeconds, inStabilizationSeconds } = spec.behavior;
  const atOnce = Math.min(state.desired, bounds.max);
  if (atOnce === wanted) return { desired: wanted, limits: [], ends: [] };
  const limits: string[] = [];
  const ends: Instant[] = [];
  const calm = mostWanted(state, wanted, now, inStabilizationSeconds * 1000);
  if (calm.members > wanted) {
    limits.push(`${calm.members} were wanted within the last ${inStabilizationSeconds} s`);
    ends.push(calm.until);
  }
  if (calm.members >= atOnce) return { desired: atOnce, limits, ends };
  const cooldownEnd = (state.scaledInAt ?? Number.NEGATIVE_INFINITY) + inCooldownSeconds * 1000;
  if (now < cooldownEnd) {
    limits.push(`not fewer for ${secondsUntil(cooldownEnd, now)} s: cool-down`);
    return { desired: atOnce, limits, ends: [...ends, cooldownEnd] };
  }
  const desired = Math.min(atOnce, Math.max(calm.members, state.desired - inStep));
  if (desired > calm.members) {
    limits.push(`at most ${inStep} fewer at once`);
    ends.push(now + Math.max(shortestRecheckMs, inCooldownSeconds * 1000));
  }
  return { desired, limits, ends };
}

/** The most that was wanted within the window, and when that has left it. */
function mostWanted(state: ScalingState, wanted: number, now: Instant, windowMs: number) {
  let most = { members: wanted, until: now };
  for (const { at, members } of state.recentWanted) {
    const until = at + windowMs;
    if (until <= now) continue;
    if (members > most.members || (members === most.members && until > most.until)) most = { members, until };
  }
  return most;
}

function secondsUntil(instant: Instant, now: Instant): number {
  return Math.ceil((instant - now) / 1000);
}

function toWish({ policy, members, reason }: WeighedWish): Wish {
  return { policy, ...(members === undefined ? {} : { members }), reason: reason.slice(0, 300) };
}
