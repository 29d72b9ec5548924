/** Models of demand, learned again every hour from what was recorded. */
import type { Instant } from "../../core/clock.ts";
import { groupKind } from "../../kinds/group.ts";
import type { Kind } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { timeZoneOf } from "../../kinds/scaling/bounds.ts";
import { learn, type Model, type Point, peak } from "../../kinds/scaling/forecast.ts";
import type { ForecastPolicy } from "../../kinds/scaling/policy-schema.ts";
import type { ForecastSignal } from "../../kinds/scaling/signals.ts";
import type { MetricStore } from "../../metrics/metric-store.ts";
import { type Measured, subjectOf } from "./signals.ts";

const hourMs = 3_600_000;
/** As far back as a model looks. */
const learnedMs = 9 * 7 * 24 * hourMs;

interface Learned {
  at: Instant;
  metric: string;
  model: Model | undefined;
}

export class Forecasts {
  readonly #metrics: MetricStore;
  /** By uid of the group and name of the policy. */
  readonly #models = new Map<string, Map<string, Learned>>();

  constructor(metrics: MetricStore) {
    this.#metrics = metrics;
  }

  of(measured: Measured, now: Instant): Record<string, ForecastSignal | undefined> {
    const policies = measured.group.spec.policies.filter((policy) => policy.type === "forecast");
    if (policies.length === 0) return {};
    return Object.fromEntries(policies.map((policy) => [policy.name, this.#signal(measured, policy, now)]));
  }

  forget(groupUid: string): void {
    this.#models.delete(groupUid);
  }

  #signal(measured: Measured, policy: ForecastPolicy, now: Instant): ForecastSignal | undefined {
    const model = this.#model(measured, policy, now);
    if (!model) return undefined;
    const { value, at, error } = peak(model, now, now + policy.aheadSeconds * 1000);
    return { value, at, error };
  }

  #model(measured: Measured, { name, metric }: ForecastPolicy, now: Instant): Model | undefined {
    const { uid } = measured.group.metadata;
    const known = this.#models.get(uid) ?? new Map<string, Learned>();
    this.#models.set(uid, known);
    const before = known.get(name);
    const hour = Math.floor(now / hourMs) * hourMs;
    if (before && before.metric === metric && before.at === hour) return before.model;
    const points = this.#points(measured, metric, hour);
    const model =
      points.length === 0 ? undefined : learn(points, { timeZone: timeZoneOf(measured.group.spec) });
    known.set(name, { at: hour, metric, model });
    return model;
  }

  /** Of whole hours that are over; of several balancers, their sum. */
  #points({ group, balancers }: Measured, metric: string, until: Instant): Point[] {
    const subjects = metric.startsWith("custom/")
      ? [subjectOf(groupKind, group)]
      : balancers.map((balancer) => subjectOf(loadBalancerKind as Kind, balancer));
    const sums = new Map<Instant, number>();
    for (const subject of subjects) {
      const query = { ...subject, metric, from: until - learnedMs, until, stepMs: hourMs };
      for (const { at, mean } of this.#metrics.range(query)) sums.set(at, (sums.get(at) ?? 0) + mean);
    }
    return [...sums].map(([at, value]) => ({ at, value })).sort((a, b) => a.at - b.at);
  }
}
