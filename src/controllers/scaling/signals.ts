/** What the metric store and the balancers say of a group now, as its policies look at it. */
import type { Instant } from "../../core/clock.ts";
import type { Group } from "../../kinds/group.ts";
import { groupKind } from "../../kinds/group.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import type { Metric } from "../../kinds/scaling/policy-schema.ts";
import {
  type ForecastSignal,
  type MetricSignal,
  type NeededSignal,
  neededSignals,
  type Signals,
  staleAfterMs,
} from "../../kinds/scaling/signals.ts";
import type { MetricStore, Sample } from "../../metrics/metric-store.ts";

export interface Measured {
  group: Group;
  members: readonly Instance[];
  balancers: readonly LoadBalancer[];
}

export function readSignals(
  metrics: MetricStore,
  measured: Measured,
  forecasts: Record<string, ForecastSignal | undefined>,
  now: Instant,
): Signals {
  const serving = measured.members.filter(isServing);
  const found: Record<string, MetricSignal | undefined> = {};
  for (const needed of neededSignals(measured.group.spec)) {
    found[needed.key] = read(metrics, { ...measured, members: serving }, needed, now);
  }
  const held = measured.balancers.reduce((sum, balancer) => sum + balancer.status.held, 0);
  return { metrics: found, forecasts, held };
}

export function isServing({ metadata, status }: Instance): boolean {
  return (
    metadata.deletedAt === undefined &&
    status.member?.phase === "serving" &&
    status.conditions.some(({ type, status: is }) => type === "Ready" && is === "true")
  );
}

function read(
  metrics: MetricStore,
  { group, members, balancers }: Measured,
  { metric, percentile }: NeededSignal,
  now: Instant,
): MetricSignal | undefined {
  // A stale value is told from none: the reason names its age.
  const notBefore = now - 10 * staleAfterMs;
  const latest = (kind: Kind, of: Resource, name: string) =>
    metrics.latest({ ...subjectOf(kind, of), metric: name }, notBefore);
  switch (metric) {
    case "cpu":
    case "memory": {
      const name = metric === "cpu" ? "cpu" : "memory-percent";
      const samples = members.flatMap((one) => latest(instanceKind as Kind, one, name) ?? []);
      const fresh = samples.filter((sample) => now - sample.at <= staleAfterMs);
      return average(fresh.length > 0 ? fresh : samples, now);
    }
    case "requests":
    case "queue": {
      const samples = balancers.flatMap((one) => latest(loadBalancerKind as Kind, one, metric) ?? []);
      return total(samples, members.length, now);
    }
    case "latency":
      return latencyOf(balancers, (one, name) => latest(loadBalancerKind as Kind, one, name), {
        name: `latency-${percentile ?? 95}`,
        members: members.length,
        now,
      });
    default: {
      const sample = latest(groupKind as Kind, group, metric);
      return total(sample ? [sample] : [], members.length, now);
    }
  }
}

function average(samples: readonly Sample[], now: Instant): MetricSignal | undefined {
  const signal = total(samples, samples.length, now);
  return signal && { ...signal, value: signal.value / samples.length };
}

/** As old as the oldest. */
function total(samples: readonly Sample[], members: number, now: Instant): MetricSignal | undefined {
  if (samples.length === 0) return undefined;
  const value = samples.reduce((sum, sample) => sum + sample.value, 0);
  return { value, ageMs: now - Math.min(...samples.map(({ at }) => at)), members };
}

/** Of several balancers, the mean, weighted by their requests. */
function latencyOf(
  balancers: readonly LoadBalancer[],
  latest: (balancer: LoadBalancer, name: string) => Sample | undefined,
  { name, members, now }: { name: string; members: number; now: Instant },
): MetricSignal | undefined {
  let weights = 0;
  let sum = 0;
  let oldest = now;
  for (const balancer of balancers) {
    const latency = latest(balancer, name);
    const requests = latest(balancer, "requests")?.value ?? 0;
    if (!latency || requests <= 0) continue;
    weights += requests;
    sum += requests * latency.value;
    oldest = Math.min(oldest, latency.at);
  }
  return weights === 0 ? undefined : { value: sum / weights, ageMs: now - oldest, members };
}

export function subjectOf(kind: Pick<Kind, "plural" | "scope">, { metadata }: Resource) {
  return { subject: resourceKey(kind, metadata as Ref), uid: metadata.uid as string };
}

/** The kinds whose samples say something of that metric. */
export function measuredAt(metric: Metric): "members" | "balancers" | "group" {
  if (metric === "cpu" || metric === "memory") return "members";
  return metric.startsWith("custom/") ? "group" : "balancers";
}
