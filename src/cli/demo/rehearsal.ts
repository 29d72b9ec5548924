/** What a demonstration does with a stack's groups: which months take how long, how much load, and what came of it. Pure. */
import type { Instant } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { type GroupSpec, groupKind } from "../../kinds/group.ts";
import type { LoadBalancerSpec } from "../../kinds/load-balancer.ts";
import { boundsAt } from "../../kinds/scaling/bounds.ts";
import type { Happening } from "./chart.ts";
import type { Recording } from "./record.ts";
import { changesOf, rehearse } from "./rehearse.ts";
import { lengthOf, planShortYear, type Stretch } from "./short-year.ts";

export interface DemoGroup {
  name: string;
  spec: GroupSpec;
  /** Ports of the host whose requests it answers; empty: nobody asks it. */
  ports: readonly number[];
}

export interface Pace {
  first: { year: number; month: number };
  months: number;
  busyMs: number;
  quietMs: number;
}

export interface MonthRow {
  label: string;
  groups: { name: string; planned: number; least: number; most: number; last: number }[];
  sent: number;
  failed: number;
}

/** @throws Invalid when nothing in the stack follows a calendar. */
export function planRehearsal(groups: readonly DemoGroup[], pace: Pace): Stretch[] {
  if (groups.length === 0) {
    throw new StrataError(
      "Invalid",
      "the stack has no groups; a demonstration shows how groups follow a calendar",
    );
  }
  const { first, months } = pace;
  const timeZone = zoneOf(groups);
  const whole = planShortYear({ ...pace, timeZone, changes: [] });
  const [from, until] = [whole[0]?.from ?? 0, whole.at(-1)?.until ?? 0];
  const changes = changesOf(
    groups.map(({ spec }) => spec),
    from,
    until,
  );
  if (changes.length === 0) {
    const time = `the ${months} months from ${first.year}-${String(first.month).padStart(2, "0")} on`;
    throw new StrataError("Invalid", `no calendar of the stack's groups changes anything in ${time}`);
  }
  return planShortYear({ ...pace, timeZone, changes });
}

/** Of the first calendar: there a month begins when people say so. */
function zoneOf(groups: readonly DemoGroup[]): string {
  const policies = groups.flatMap(({ spec }) => spec.policies);
  return policies.find((policy) => policy.type === "calendar")?.calendar.timeZone ?? "UTC";
}

/** Without calendars, as it is before the year begins. */
export function beforeTheYear(spec: GroupSpec): GroupSpec {
  return { ...spec, policies: spec.policies.filter(({ type }) => type !== "calendar") };
}

/** Stabilisation and cool-downs pass as quickly as the year does. */
const rehearsedSeconds = { inStabilizationSeconds: 3, inCooldownSeconds: 1, outCooldownSeconds: 1 } as const;

export function inTheYear(spec: GroupSpec, stretches: readonly Stretch[], startAt: Instant): GroupSpec {
  const behavior = { ...spec.behavior };
  for (const [name, seconds] of Object.entries(rehearsedSeconds) as [
    keyof typeof rehearsedSeconds,
    number,
  ][]) {
    behavior[name] = Math.min(behavior[name], seconds);
  }
  return groupKind.spec.parse({ ...spec, behavior, policies: rehearse(spec.policies, stretches, startAt) });
}

/** Members that the calendar wants at least, at a moment of the short year. `spec`: of inTheYear. */
export function plannedAt(spec: GroupSpec, startAt: Instant, shortMs: number): number {
  return boundsAt(spec, startAt + shortMs).min;
}

/** Of the balancers, those listeners that speak HTTP without TLS and lead to the group. */
export function portsOf(group: string, balancers: readonly LoadBalancerSpec[]): number[] {
  return balancers
    .filter((balancer) => balancer.group === group)
    .flatMap(({ listeners }) => listeners)
    .filter(({ protocol, redirectTo }) => protocol === "http" && redirectTo === undefined)
    .map(({ port }) => port);
}

/** `shiftMs`: how much later a group may follow the plan and still be judged by the end of the month. */
export function monthRows(
  groups: readonly DemoGroup[],
  stretches: readonly Stretch[],
  recording: Recording,
  startAt: Instant,
): MonthRow[] {
  return stretches.map(({ label, fromMs, untilMs }) => {
    const middle = startAt + (fromMs + untilMs) / 2;
    const { sent, failed } = recording.count(fromMs, untilMs);
    return {
      label,
      groups: groups.map(({ name, spec }) => ({
        name,
        planned: boundsAt(spec, middle).min,
        ...recording.range(name, fromMs, untilMs),
      })),
      sent,
      failed,
    };
  });
}

const loadSteps = 240;

export function toHappening(
  title: string,
  groups: readonly DemoGroup[],
  stretches: readonly Stretch[],
  recording: Recording,
  startAt: Instant,
): Happening {
  const lengthMs = lengthOf(stretches);
  const { sent, failed } = recording.count(0, lengthMs);
  const requests = `${sent} requests, ${failed} failed`;
  return {
    title,
    subtitle: `${stretches.length} months in ${Math.round(lengthMs / 1000)} s on real guests; ${requests}. Shade: the calendar; line: members that served`,
    lengthMs,
    marks: stretches.map(({ fromMs, label }) => ({ atMs: fromMs, label })),
    lanes: groups.map(({ name, spec }) => ({
      name,
      note: spec.template.type === "vm" ? "virtual machines" : "containers",
      serving: recording.serving(name).filter(({ atMs }) => atMs <= lengthMs),
      planned: plannedMoments(spec, stretches, startAt),
    })),
    load: recording.load(lengthMs, loadSteps),
  };
}

function plannedMoments(spec: GroupSpec, stretches: readonly Stretch[], startAt: Instant) {
  const [first, last] = [stretches[0], stretches.at(-1)];
  if (!first || !last) return [];
  const changes = changesOf([spec], startAt, startAt + lengthOf(stretches)).map((at) => at - startAt);
  return [0, ...changes].map((atMs) => ({ atMs, value: plannedAt(spec, startAt, atMs) }));
}

/** Where today lies in the year, for people. */
export function monthAt(stretches: readonly Stretch[], shortMs: number): string {
  return stretches.find(({ fromMs, untilMs }) => shortMs >= fromMs && shortMs < untilMs)?.label ?? "";
}
