/** What each policy of a group wants by itself, and why. */
import type { Instant } from "../../core/clock.ts";
import type { GroupSpec } from "../group.ts";
import type { Bounds } from "./bounds.ts";
import { calendarAt } from "./calendar.ts";
import type { CalendarPolicy, ForecastPolicy, Policy, StepPolicy, TargetPolicy } from "./policy-schema.ts";
import { freshSignal, isQuiet, isTotal, type MetricSignal, type Signals } from "./signals.ts";

/** What a policy wants. `members` undefined: it has nothing to say, and `reason` tells why. */
export interface Wish {
  policy: string;
  members?: number;
  reason: string;
}

/** A wish with what is needed to weigh it. */
export interface WeighedWish extends Wish {
  /** Its metric is missing or too old: nobody may conclude that fewer are enough. */
  blind: boolean;
  /** What its metric is; undefined where it looks at none. */
  metric?: "average" | "total";
}

/** A quotient of floats that is a whole number but for its rounding stays that number. */
const rounding = 1e-9;

export interface WishInput {
  spec: GroupSpec;
  /** Members the group is to have at the moment. */
  desired: number;
  bounds: Bounds;
  signals: Signals;
  now: Instant;
}

/** One of each policy, in their order; first `manual`, and `held` where requests wait for a member. */
export function wishesOf(input: WishInput): WeighedWish[] {
  const { spec, bounds, signals } = input;
  // What a calendar raises the minimum to, the calendar itself wants.
  const manual = spec.desired ?? Math.min(spec.min, bounds.min);
  const said = spec.desired === undefined ? "the smallest number allowed now" : "wanted by hand";
  const wishes = [plain("manual", manual, said)];
  if (signals.held > 0) wishes.push(plain("held", 1, `${counted(signals.held, "request")} held`));
  return [...wishes, ...spec.policies.map((policy) => wishOf(policy, input))];
}

function wishOf(policy: Policy, input: WishInput): WeighedWish {
  switch (policy.type) {
    case "calendar":
      return calendarWish(policy, input);
    case "forecast":
      return forecastWish(policy, input);
    case "target":
    case "step":
      return metricWish(policy, input);
  }
}

function metricWish(policy: TargetPolicy | StepPolicy, input: WishInput): WeighedWish {
  const metric = isTotal(policy.metric) ? "total" : "average";
  if (policy.metric === "latency" && isQuiet(input.signals)) {
    return { ...plain(policy.name, 0, "no requests, so no latency"), metric };
  }
  const signal = freshSignal(policy, input.signals);
  if (typeof signal === "string") return { policy: policy.name, reason: signal, blind: true, metric };
  const { members, reason } =
    policy.type === "target" ? targetWish(policy, signal) : stepWish(policy, signal, input.desired);
  return { ...plain(policy.name, members, reason), metric };
}

function plain(policy: string, members: number, reason: string): WeighedWish {
  return { policy, members, reason, blind: false };
}

/** Its min; its max is a bound. */
function calendarWish(policy: CalendarPolicy, { now }: WishInput): WeighedWish {
  const state = calendarAt(policy.calendar, now);
  if (state.events.length === 0) return { policy: policy.name, reason: "no event lasts", blind: false };
  const names = state.events.join(", ");
  const most = state.max === undefined ? "" : `, at most ${state.max}`;
  if (state.min === undefined) return { policy: policy.name, reason: `${names}${most}`, blind: false };
  return plain(policy.name, state.min, `${names}${most}`);
}

function forecastWish(policy: ForecastPolicy, { signals }: WishInput): WeighedWish {
  const forecast = signals.forecasts[policy.name];
  if (!forecast) return { policy: policy.name, reason: "not enough was recorded yet", blind: false };
  const members = Math.max(0, Math.ceil(forecast.value / policy.target - rounding));
  const { error } = forecast;
  const off = error
    ? `; lately off by ${Math.round(error.mape * 100)} %, ${shown(error.mase)} of last week's`
    : "";
  const reason = `${policy.metric} ${shown(forecast.value)} expected, ${shown(policy.target)} each${off}`;
  return plain(policy.name, members, reason);
}

/**
 * Kubernetes' horizontal pod autoscaler: ceil(members × value ÷ target), where the value is an average over those members,
 * which for a total is ceil(total ÷ target). No change while value ÷ target is within 1 ± tolerance.
 * https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details
 */
function targetWish(policy: TargetPolicy, signal: MetricSignal) {
  const members = isTotal(policy.metric) ? Math.max(1, signal.members) : signal.members;
  const ratio = perInstance(policy, signal) / policy.target;
  const said = `${seen(policy, signal)}, target ${shown(policy.target)}`;
  if (Math.abs(ratio - 1) <= policy.tolerance + rounding) return { members, reason: `${said}: near enough` };
  return { members: Math.max(0, Math.ceil(members * ratio - rounding)), reason: said };
}

/**
 * Counted from the members that were measured: those still starting are not asked for again and again, and those still
 * leaving are not given up twice. Outside of its ranges a step policy holds what there is.
 */
function stepWish(policy: StepPolicy, signal: MetricSignal, desired: number) {
  const each = perInstance(policy, signal);
  const change = stepAt(policy.steps, each)?.change ?? 0;
  const said = seen(policy, signal);
  if (change === 0) return { members: desired, reason: `${said}: no step` };
  // Whatever is asked for needs one: without it, held requests would wake the group again at once.
  const least = isTotal(policy.metric) && signal.value > 0 ? 1 : 0;
  const next = Math.max(least, signal.members + change);
  return change > 0
    ? { members: Math.max(desired, next), reason: `${said}: ${change} more than ${signal.members}` }
    : {
        members: Math.min(Math.max(least, desired), next),
        reason: `${said}: ${-change} fewer than ${signal.members}`,
      };
}

export function stepAt(steps: StepPolicy["steps"], value: number): StepPolicy["steps"][number] | undefined {
  return steps.find(
    ({ from, below }) => (from === undefined || value >= from) && (below === undefined || value < below),
  );
}

function seen(policy: TargetPolicy | StepPolicy, signal: MetricSignal): string {
  return `${policy.metric} ${shown(perInstance(policy, signal))}${isTotal(policy.metric) ? " each" : ""}`;
}

/** A total over no members is borne by one that is not there yet. */
function perInstance(policy: TargetPolicy | StepPolicy, signal: MetricSignal): number {
  return isTotal(policy.metric) ? signal.value / Math.max(1, signal.members) : signal.value;
}

function shown(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
