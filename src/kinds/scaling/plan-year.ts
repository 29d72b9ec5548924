/**
 * What the calendars of groups will do to capacity: computed from change to change, never hour by hour. Each group is taken to
 * want what is known beforehand: its minimum as the calendars have it, or `desired` by hand where that is more. What metrics and
 * forecasts will want on top of it is not known; the room for it is what stays unused.
 */
import type { Instant } from "../../core/clock.ts";
import type { GroupSpec } from "../group.ts";
import { arbitrate, type Capacity, type Claim, type Grant } from "./arbiter.ts";
import { boundsOf, type PolicyEvent, policyEvents } from "./bounds.ts";
import { occurrencesAfter } from "./calendar-event.ts";

export interface PlannedGroup {
  key: string;
  spec: Pick<GroupSpec, "min" | "max" | "desired" | "policies" | "priority" | "lends">;
  /** Of one member. */
  member: Capacity;
}

/** A stretch in which nothing of a group changes. */
export interface PlanSegment {
  from: Instant;
  until: Instant;
  min: number;
  max: number;
  wanted: number;
  granted: number;
  lent: number;
  takers: string[];
  /** `POLICY/EVENT` of all that last. */
  events: string[];
}

export interface PlanChange {
  at: Instant;
  group: string;
  from: number;
  to: number;
  why: string;
}

/** A time in which a group does not get its minimum. */
export interface PlanConflict {
  from: Instant;
  until: Instant;
  group: string;
  min: number;
  granted: number;
}

export interface PlanLoan {
  from: Instant;
  until: Instant;
  group: string;
  members: number;
  takers: string[];
}

export interface PlanUse {
  from: Instant;
  until: Instant;
  /** By all groups together. */
  used: Capacity;
}

export interface CapacityPlan {
  from: Instant;
  until: Instant;
  capacity: Capacity;
  groups: { key: string; segments: PlanSegment[] }[];
  /** Of `granted`, in the order of time. */
  changes: PlanChange[];
  conflicts: PlanConflict[];
  loans: PlanLoan[];
  use: PlanUse[];
  /** Capacity that no group uses: mean over the time, and the least. */
  unused: { mean: Capacity; least: Capacity; leastAt: Instant };
}

export interface PlanInput {
  groups: readonly PlannedGroup[];
  /** What hosts promise to these groups in all; see arbitrate. */
  capacity: Capacity;
  from: Instant;
  until: Instant;
}

export function planCapacity({ groups, capacity, from, until }: PlanInput): CapacityPlan {
  const lanes = segmentsOver(groups, capacity, from, until);
  const planned = lanes.map((segments, index) => ({ key: groups[index]?.key ?? "", segments }));
  const use = usedOver(groups, planned, from, until);
  return {
    from,
    until,
    capacity,
    groups: planned,
    changes: planned.flatMap(changesOf).sort((a, b) => a.at - b.at),
    conflicts: planned.flatMap(conflictsOf).sort((a, b) => a.from - b.from),
    loans: planned.flatMap(loansOf).sort((a, b) => a.from - b.from),
    use,
    unused: unusedOver(use, capacity, from, until),
  };
}

/** What a group is to have from `at` on. */
interface Step {
  at: Instant;
  min: number;
  max: number;
  wanted: number;
  events: string[];
}

/** From start and end to start and end of its events; the first step is at `from`. */
function stepsOf({ spec }: PlannedGroup, from: Instant, until: Instant): Step[] {
  const events = policyEvents(spec);
  const turns: { at: Instant; index: number; on: boolean }[] = [];
  events.forEach(({ event }, index) => {
    for (const { start, end } of occurrencesAfter(event, from)) {
      if (start >= until) break;
      turns.push({ at: Math.max(from, start), index, on: true });
      if (end < until) turns.push({ at: end, index, on: false });
    }
  });
  turns.sort((a, b) => a.at - b.at);
  const lasting = new Array<number>(events.length).fill(0);
  const steps: Step[] = [];
  for (let index = 0, at = from; ; ) {
    for (; turns[index]?.at === at; index++) {
      const turn = turns[index];
      if (turn) lasting[turn.index] = (lasting[turn.index] ?? 0) + (turn.on ? 1 : -1);
    }
    steps.push(
      stepAt(
        spec,
        at,
        events.filter((_, place) => (lasting[place] ?? 0) > 0),
      ),
    );
    const next = turns[index];
    if (!next) return steps;
    at = next.at;
  }
}

function stepAt(spec: PlannedGroup["spec"], at: Instant, lasting: readonly PolicyEvent[]): Step {
  const { min, max, events } = boundsOf(spec, lasting);
  return { at, min, max, wanted: Math.max(min, Math.min(max, spec.desired ?? min)), events };
}

/** A group on its way through time. */
interface Lane {
  claim: Claim;
  step: Step;
  segments: PlanSegment[];
}

/**
 * What each group gets, from change to change of any of them. While all fit, only the groups that change are looked at;
 * otherwise all are shared anew, and what has been shared before is remembered: calendars say the same again and again.
 */
function segmentsOver(
  groups: readonly PlannedGroup[],
  capacity: Capacity,
  from: Instant,
  until: Instant,
): PlanSegment[][] {
  const turns = groups.flatMap((group, lane) => stepsOf(group, from, until).map((step) => ({ lane, step })));
  turns.sort((a, b) => a.step.at - b.step.at);
  const start: Step = { at: from, min: 0, max: 0, wanted: 0, events: [] };
  const lanes = groups.map((group): Lane => ({ claim: claimOf(group, start), step: start, segments: [] }));
  const share = remembering(lanes, capacity);
  let fitted = true;
  for (let index = 0; index < turns.length; ) {
    const at = turns[index]?.step.at ?? until;
    const changed: Lane[] = [];
    for (; turns[index]?.step.at === at; index++) {
      const turn = turns[index];
      const lane = turn && lanes[turn.lane];
      if (!turn || !lane) continue;
      lane.step = turn.step;
      lane.claim.min = turn.step.min;
      lane.claim.wanted = turn.step.wanted;
      if (at === from) lane.claim.current = turn.step.wanted;
      changed.push(lane);
    }
    const fits = allFit(lanes, capacity);
    const grants = fits ? undefined : share();
    const looked = fits && fitted ? changed : lanes;
    for (const lane of looked) extend(lane, at, until, grants?.get(lane.claim.key));
    fitted = fits;
  }
  return lanes.map(({ segments }) => segments);
}

function claimOf({ key, spec, member }: PlannedGroup, { min, wanted }: Step): Claim {
  const { priority, lends } = spec;
  return { key, min, usual: spec.min, wanted, current: 0, priority, lends, member };
}

function allFit(lanes: readonly Lane[], capacity: Capacity): boolean {
  let { cpus, memoryMib } = capacity;
  for (const { claim } of lanes) {
    cpus -= claim.wanted * claim.member.cpus;
    memoryMib -= claim.wanted * claim.member.memoryMib;
  }
  return cpus >= 0 && memoryMib >= 0;
}

function remembering(lanes: readonly Lane[], capacity: Capacity): () => Map<string, Grant> {
  const known = new Map<string, Map<string, Grant>>();
  const claims = lanes.map(({ claim }) => claim);
  return () => {
    // Counts are at most 1000, so each is one character.
    const key = String.fromCharCode(...claims.flatMap(({ min, wanted, current }) => [min, wanted, current]));
    const before = known.get(key);
    if (before) return before;
    const grants = arbitrate(claims, capacity);
    known.set(key, grants);
    return grants;
  };
}

const nobody: string[] = [];

/** Without a grant it gets all that it wants. A segment that goes on as before just becomes longer. */
function extend(lane: Lane, at: Instant, until: Instant, grant: Grant | undefined): void {
  const { step, segments } = lane;
  const { granted, lent, takers = nobody } = grant ?? { granted: step.wanted, lent: 0 };
  lane.claim.current = granted;
  const last = segments.at(-1);
  if (
    last &&
    last.granted === granted &&
    last.lent === lent &&
    last.events === step.events &&
    (last.takers === takers || last.takers.join() === takers.join())
  ) {
    return;
  }
  if (last) last.until = at;
  const { min, max, wanted, events } = step;
  segments.push({ from: at, until, min, max, wanted, granted, lent, takers, events });
}

type Planned = CapacityPlan["groups"][number];

function changesOf({ key, segments }: Planned): PlanChange[] {
  return segments.flatMap((segment, index) => {
    const before = segments[index - 1];
    if (!before || before.granted === segment.granted) return [];
    const why = whyChanged(before, segment);
    return [{ at: segment.from, group: key, from: before.granted, to: segment.granted, why }];
  });
}

function whyChanged(before: PlanSegment, after: PlanSegment): string {
  const begun = after.events
    .filter((event) => !before.events.includes(event))
    .map((event) => `${event} begins`);
  const ended = before.events
    .filter((event) => !after.events.includes(event))
    .map((event) => `${event} ends`);
  const lending =
    after.lent > before.lent
      ? [`lends ${after.lent} to ${after.takers.join(", ")}`]
      : after.lent < before.lent
        ? [`gets ${before.lent - after.lent} back from ${before.takers.join(", ")}`]
        : [];
  const short = after.granted < after.min ? [`needs ${after.min}`] : [];
  const reasons = [...begun, ...ended, ...lending, ...short];
  return reasons.length > 0 ? reasons.join("; ") : "capacity is shared anew";
}

function conflictsOf({ key, segments }: Planned): PlanConflict[] {
  return segments.flatMap(({ from, until, min, granted }) =>
    granted < min ? [{ from, until, group: key, min, granted }] : [],
  );
}

function loansOf({ key, segments }: Planned): PlanLoan[] {
  return segments.flatMap(({ from, until, lent, takers }) =>
    lent > 0 ? [{ from, until, group: key, members: lent, takers }] : [],
  );
}

/** All groups together, from change to change. */
function usedOver(
  groups: readonly PlannedGroup[],
  planned: readonly Planned[],
  from: Instant,
  until: Instant,
): PlanUse[] {
  const turns = planned.flatMap(({ segments }, place) =>
    segments.map((segment, index) => {
      const more = segment.granted - (segments[index - 1]?.granted ?? 0);
      const member = groups[place]?.member ?? { cpus: 0, memoryMib: 0 };
      return { at: segment.from, cpus: more * member.cpus, memoryMib: more * member.memoryMib };
    }),
  );
  turns.sort((a, b) => a.at - b.at);
  const use: PlanUse[] = [{ from, until, used: { cpus: 0, memoryMib: 0 } }];
  for (const { at, cpus, memoryMib } of turns) {
    if (cpus === 0 && memoryMib === 0) continue;
    let last = use.at(-1);
    if (!last) break;
    if (last.from !== at) {
      last.until = at;
      last = { from: at, until, used: { ...last.used } };
      use.push(last);
    }
    last.used.cpus += cpus;
    last.used.memoryMib += memoryMib;
  }
  return use;
}

function unusedOver(use: readonly PlanUse[], capacity: Capacity, from: Instant, until: Instant) {
  const mean = { cpus: 0, memoryMib: 0 };
  const least = { ...capacity };
  let leastAt = from;
  for (const { from: begin, until: end, used } of use) {
    const share = until > from ? (end - begin) / (until - from) : 0;
    mean.cpus += (capacity.cpus - used.cpus) * share;
    mean.memoryMib += (capacity.memoryMib - used.memoryMib) * share;
    const shareLeft = (of: Capacity) =>
      Math.min(of.cpus / (capacity.cpus || 1), of.memoryMib / (capacity.memoryMib || 1));
    const left = { cpus: capacity.cpus - used.cpus, memoryMib: capacity.memoryMib - used.memoryMib };
    if (shareLeft(left) < shareLeft(least)) {
      Object.assign(least, left);
      leastAt = begin;
    }
  }
  return { mean, least, leastAt };
}
