/** What is measured for a group, as policies look at it. */
import type { Instant } from "../../core/clock.ts";
import type { GroupSpec } from "../group.ts";
import type { ForecastError } from "./forecast.ts";
import type { Metric, Policy } from "./policy-schema.ts";

/** Older than this, a value says nothing any more. */
export const staleAfterMs = 30_000;

/**
 * The latest value of one metric of a whole group:
 *
 * | metric                      | `value`                                        | kind    |
 * |-----------------------------|------------------------------------------------|---------|
 * | cpu, memory                 | per cent of what the serving members are given | average |
 * | latency                     | milliseconds, the percentile over all requests | average |
 * | requests                    | that come per second, for all members together | total   |
 * | queue                       | waiting now, for all members together          | total   |
 * | custom/NAME                 | as pushed, for all members together            | total   |
 *
 * An average falls when members are added, a total does not; both are brought to a value per instance by what reads them.
 */
export interface MetricSignal {
  value: number;
  /** How long ago it was measured. */
  ageMs: number;
  /** Members that served while it was measured. */
  members: number;
}

/** What a forecast expects at most from now until `aheadSeconds` from now: a total. */
export interface ForecastSignal {
  value: number;
  at: Instant;
  /** How good such forecasts were lately; it stands in the reason of the wish. */
  error?: ForecastError;
}

export interface Signals {
  /** By signalKey. Missing: never measured. */
  metrics: Readonly<Record<string, MetricSignal | undefined>>;
  /** By the name of the policy. Missing: not enough was recorded yet. */
  forecasts: Readonly<Record<string, ForecastSignal | undefined>>;
  /** Requests that are held until a member serves. */
  held: number;
}

export const noSignals: Signals = { metrics: {}, forecasts: {}, held: 0 };

export interface NeededSignal {
  key: string;
  metric: Metric;
  /** Of latency only. */
  percentile?: number;
}

/** `cpu`, `custom/jobs`, and `latency/95` for a percentile. */
export function signalKey(metric: Metric, percentile?: number): string {
  return metric === "latency" ? `latency/${percentile ?? 95}` : metric;
}

export function isTotal(metric: Metric): boolean {
  return metric === "requests" || metric === "queue" || metric.startsWith("custom/");
}

/**
 * What decide wants to know of a group, each once. With `latency` also `requests`: without requests there is no latency, and
 * only then that is no gap.
 */
export function neededSignals(spec: Pick<GroupSpec, "policies">): NeededSignal[] {
  const needed = new Map<string, NeededSignal>();
  const add = (metric: Metric, percentile?: number) => {
    const key = signalKey(metric, percentile);
    needed.set(key, { key, metric, ...(metric === "latency" && percentile ? { percentile } : {}) });
  };
  for (const policy of spec.policies) {
    if (policy.type !== "target" && policy.type !== "step") continue;
    add(policy.metric, policy.percentile);
    if (policy.metric === "latency") add("requests");
  }
  return [...needed.values()];
}

/** The policy's metric, when it is fresh; otherwise why not. */
export function freshSignal(
  policy: Extract<Policy, { type: "target" | "step" }>,
  signals: Signals,
): MetricSignal | string {
  const signal = signals.metrics[signalKey(policy.metric, policy.percentile)];
  if (!signal) return `no value of ${policy.metric} yet`;
  if (signal.ageMs > staleAfterMs) {
    return `the last value of ${policy.metric} is ${Math.round(signal.ageMs / 1000)} s old`;
  }
  return signal;
}

/** Fresh, and nobody asked for anything. */
export function isQuiet(signals: Signals): boolean {
  const requests = signals.metrics.requests;
  return requests !== undefined && requests.ageMs <= staleAfterMs && requests.value === 0;
}
