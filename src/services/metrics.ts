/**
 * The verbs on metrics: agents report, members push what only they can measure, everybody reads what they may see. What a
 * principal may see of a resource, it may see of its metrics.
 */
import { fromTimestamp, type Instant, toTimestamp } from "../core/clock.ts";
import type { FieldError, StrataError } from "../core/errors.ts";
import { isJsonObject, type JsonObject } from "../core/json.ts";
import { groupKind } from "../kinds/group.ts";
import { type Ref, refOfKey, resourceKey } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import type { CurrentMetrics, MetricSeries } from "../kinds/metric-answers.ts";
import {
  customMetricRule,
  findMetric,
  isMeasuredKind,
  type MeasuredKind,
  measuredKinds,
  metricNames,
  nearMetric,
} from "../kinds/metric-names.ts";
import { findKind } from "../kinds/registry.ts";
import { type MetricStore, metricLimits, type Point, type Sample } from "../metrics/metric-store.ts";
import type { World } from "./hooks.ts";
import { KnownSubjects } from "./known-subjects.ts";
import { invalid } from "./parse.ts";
import { authorizeAction, type Principal, requireOperator } from "./principal.ts";
import type { Resources } from "./resources.ts";

export const pushLimits = {
  metricsPerPush: 32,
  /** Names that one group has had since the daemon started. */
  metricsPerGroup: 100,
} as const;

/** What is older is not the present any more: five rounds of the slow pace. */
export const currentMs = 50_000;
const defaultRangeMs = 3_600_000;
const defaultPoints = 240;

export interface MetricQuery {
  kind: string;
  project?: string;
  name: string;
  metric: string;
  /** RFC 3339; left out: the last hour. */
  from?: string | undefined;
  until?: string | undefined;
  stepSeconds?: number | undefined;
}

export class Metrics {
  readonly #world: World;
  readonly #resources: Resources;
  readonly #store: MetricStore;
  readonly #known: KnownSubjects;
  readonly #customNames = new Map<string, Set<string>>();

  constructor(world: World, resources: Resources, store: MetricStore) {
    this.#world = world;
    this.#resources = resources;
    this.#store = store;
    this.#known = new KnownSubjects(world);
  }

  /**
   * A round of an agent: `{ at, samples: [{ subject, uid, values: { METRIC: number } }] }`. What has gone meanwhile is left
   * out and told back; anything else that is wrong refuses the whole.
   * @throws Forbidden, Invalid
   */
  async report(principal: Principal, body: unknown): Promise<{ recorded: number; unknown: string[] }> {
    requireOperator(principal, "report metrics");
    const action = "report metrics";
    if (!isJsonObject(body) || !Array.isArray(body.samples)) {
      throw invalid(action, [{ path: "samples", message: "must be a list" }]);
    }
    const at = this.#instant(action, body.at);
    const samples: Sample[] = [];
    const unknown: string[] = [];
    for (const [index, entry] of body.samples.entries()) {
      const { subject, uid, kind, values } = checkEntry(action, entry, `samples[${index}]`);
      if (samples.length + Object.keys(values).length > metricLimits.samplesPerReport) {
        const allowed = `at most ${metricLimits.samplesPerReport} values`;
        throw invalid(action, [{ path: "samples", message: "are too many", allowed }]);
      }
      if (!(await this.#known.has(kind, subject, uid))) unknown.push(subject);
      else
        for (const metric in values) samples.push({ subject, uid, metric, at, value: values[metric] ?? 0 });
    }
    this.#store.record(samples);
    return { recorded: samples.length, unknown };
  }

  /**
   * Values of a group that only its application knows: `{ metrics: { NAME: number }, at? }`.
   * @throws NotFound, Forbidden, Invalid
   */
  async push(principal: Principal, ref: Ref, body: unknown): Promise<void> {
    authorizeAction(principal, groupKind as Kind, ref.project ?? "", "push metrics");
    const action = `push metrics of group "${ref.name}"`;
    const group = await this.#resources.require(principal, groupKind, ref);
    if (!isJsonObject(body) || !isJsonObject(body.metrics)) {
      throw invalid(action, [{ path: "metrics", message: "must be an object", allowed: "{ NAME: number }" }]);
    }
    refuseOthers(action, body, ["metrics", "at"]);
    const at = body.at === undefined ? this.#world.clock.now() : this.#instant(action, body.at);
    const { uid } = group.metadata;
    const names = Object.keys(body.metrics);
    const values = checkValues(action, body.metrics, "metrics");
    this.#admitNames(action, uid, names);
    const subject = resourceKey(groupKind, ref);
    this.#store.record(
      names.map((name) => ({ subject, uid, metric: `custom/${name}`, at, value: values[name] ?? 0 })),
    );
  }

  /** @throws NotFound, Forbidden, Invalid */
  async range(principal: Principal, query: MetricQuery): Promise<MetricSeries> {
    const { metric, name, project } = query;
    const action = `read ${metric.slice(0, 80)} of ${name}`;
    const kind = kindOf(action, query.kind);
    const ref = project === undefined ? { name } : { project, name };
    const { uid } = (await this.#resources.require(principal, kind as Kind, ref)).metadata;
    const info = findMetric(kind.plural, metric);
    if (!info) throw unknownMetric(action, kind.plural, metric, "metric");
    const { from, until, stepMs } = this.#rangeOf(action, query);
    const subject = resourceKey(kind, ref);
    const points = this.#store.range({ subject, uid, metric, from, until, stepMs });
    return {
      kind: kind.plural,
      ...ref,
      uid,
      metric,
      unit: info.unit,
      from: toTimestamp(from),
      until: toTimestamp(until),
      stepSeconds: stepMs / 1_000,
      points: points.map(({ at, ...values }: Point) => ({ at: toTimestamp(at), ...values })),
    };
  }

  /** The newest values of all resources of a kind that the principal may see, by name. */
  async current(principal: Principal, plural: string, project?: string): Promise<CurrentMetrics[]> {
    const kind = kindOf("read metrics", plural);
    const scope = project === undefined ? {} : { project };
    // Authorizes, and tells a project that is not there.
    await this.#resources.list(principal, kind as Kind, { ...scope, limit: 1 });
    const only = project ?? (kind.scope === "project" ? principal.project : undefined);
    const prefix = only === undefined ? `/${plural}/` : `/${plural}/${only}/`;
    const found = new Map<string, CurrentMetrics & { newest: Instant }>();
    for (const { subject, uid, metric, at, value } of this.#store.current(
      this.#world.clock.now() - currentMs,
    )) {
      if (!subject.startsWith(prefix)) continue;
      const key = `${subject} ${uid}`;
      let entry = found.get(key);
      if (!entry) {
        entry = { ...refOfKey(kind, subject), uid, at: "", newest: at, values: {} };
        found.set(key, entry);
      }
      entry.newest = Math.max(entry.newest, at);
      entry.values[metric] = value;
    }
    return [...found.entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { newest, ...entry }]) => ({ ...entry, at: toTimestamp(newest) }));
  }

  /** What an exposition shows to the principal: its own project, or everything. */
  *visibleSamples(principal: Principal): Iterable<Sample> {
    for (const sample of this.#store.current(this.#world.clock.now() - currentMs)) {
      const [, , project, name] = sample.subject.split("/");
      const visible =
        principal.project === undefined || (name !== undefined && project === principal.project);
      if (visible) yield sample;
    }
  }

  prune(): void {
    this.#store.prune(this.#world.clock.now());
    this.#known.clear();
  }

  /** @throws Invalid unless it is a time, and not a future one. */
  #instant(action: string, value: unknown): Instant {
    const at = typeof value === "string" ? fromTimestamp(value) : undefined;
    const allowed = "a time such as 2030-01-31T12:00:00Z";
    if (at === undefined) throw invalid(action, [{ path: "at", message: "must be a time", allowed }]);
    if (at <= this.#world.clock.now() + metricLimits.aheadMs) return at;
    throw invalid(action, [
      {
        path: "at",
        message: `is ${String(value).slice(0, 40)}, in the future; are the clocks right?`,
        allowed: `at most ${metricLimits.aheadMs / 1_000} s ahead`,
      },
    ]);
  }

  #rangeOf(action: string, query: MetricQuery): { from: Instant; until: Instant; stepMs: number } {
    const time = (path: "from" | "until"): Instant | undefined => {
      const text = query[path];
      if (text === undefined) return undefined;
      const instant = fromTimestamp(text);
      if (instant !== undefined) return instant;
      throw invalid(action, [
        { path: `?${path}`, message: "must be a time", allowed: "a time such as 2030-01-31T12:00:00Z" },
      ]);
    };
    const until = time("until") ?? this.#world.clock.now();
    const from = time("from") ?? until - defaultRangeMs;
    const stepMs = 1_000 * (query.stepSeconds ?? niceStep((until - from) / 1_000 / defaultPoints));
    // Whole steps, so that a range that moves on shows the same steps again.
    return { from: stepMs > 0 ? Math.floor(from / stepMs) * stepMs : from, until, stepMs };
  }

  #admitNames(action: string, uid: string, names: readonly string[]): void {
    const refuse = (message: string, allowed: string): StrataError =>
      invalid(action, [{ path: "metrics", message, allowed }]);
    if (names.length === 0 || names.length > pushLimits.metricsPerPush) {
      throw refuse(`has ${names.length} names`, `1 to ${pushLimits.metricsPerPush}`);
    }
    for (const name of names) {
      if (findMetric("groups", `custom/${name}`)) continue;
      const path = `metrics.${name.slice(0, 80)}`;
      throw invalid(action, [{ path, message: "is no name of a metric", allowed: customMetricRule }]);
    }
    const had = this.#customNames.get(uid) ?? new Set();
    const all = new Set([...had, ...names]);
    if (all.size > pushLimits.metricsPerGroup) {
      throw refuse("would be too many different ones", `at most ${pushLimits.metricsPerGroup} a group`);
    }
    this.#customNames.set(uid, all);
  }
}

interface Entry {
  subject: string;
  uid: string;
  kind: Kind;
  values: Record<string, number>;
}

/** `/instances/default/web`, of a kind that is measured. */
const subjectForm = /^\/([a-z-]{1,40})\/[a-z][a-z0-9-]{0,62}(?:\/[a-z][a-z0-9-]{0,62})?$/;

function checkEntry(action: string, entry: unknown, path: string): Entry {
  const refuse = (field: FieldError) => invalid(action, [{ ...field, path: `${path}.${field.path}` }]);
  if (!isJsonObject(entry)) throw invalid(action, [{ path, message: "must be an object" }]);
  refuseOthers(action, entry, ["subject", "uid", "values"], `${path}.`);
  const { subject, uid, values } = entry;
  const plural = typeof subject === "string" ? subjectForm.exec(subject)?.[1] : undefined;
  if (plural === undefined || typeof subject !== "string" || !isMeasuredKind(plural)) {
    const message = `is ${JSON.stringify(subject)?.slice(0, 80) ?? "missing"}, which nobody measures`;
    throw refuse({
      path: "subject",
      message,
      allowed: `/KIND/PROJECT/NAME, KIND of ${measuredKinds.join(", ")}`,
    });
  }
  if (typeof uid !== "string") throw refuse({ path: "uid", message: "must be text" });
  if (!isJsonObject(values)) throw refuse({ path: "values", message: "must be an object" });
  const kind = findKind(plural) as Kind;
  for (const metric in values) {
    if (!findMetric(plural, metric)) throw unknownMetric(action, plural, metric, `${path}.values`);
  }
  return { subject, uid, kind, values: checkValues(action, values, `${path}.values`) };
}

/**
 * JSON has no NaN, but null in its place, and numbers that are too large become infinite. Plain loops here: this runs for each
 * value that agents report.
 */
function checkValues(action: string, values: JsonObject, path: string): Record<string, number> {
  for (const name in values) {
    const value = values[name];
    if (typeof value === "number" && Number.isFinite(Math.fround(value))) continue;
    throw invalid(action, [
      {
        path: `${path}.${name}`,
        message: `is ${JSON.stringify(value)?.slice(0, 40)}, not a finite number`,
        allowed: "a number below 3.4e38",
      },
    ]);
  }
  return values as Record<string, number>;
}

function refuseOthers(action: string, body: JsonObject, known: readonly string[], prefix = ""): void {
  const other = Object.keys(body).find((key) => !known.includes(key));
  if (other === undefined) return;
  const path = `${prefix}${other.slice(0, 80)}`;
  throw invalid(action, [{ path, message: "is not a known field", allowed: known.join(", ") }]);
}

function kindOf(action: string, plural: string): Kind & { plural: MeasuredKind } {
  if (isMeasuredKind(plural)) return findKind(plural) as Kind & { plural: MeasuredKind };
  const message = `is ${JSON.stringify(plural.slice(0, 80))}, of which nothing is measured`;
  throw invalid(action, [{ path: "?kind", message, allowed: measuredKinds.join(", ") }]);
}

function unknownMetric(action: string, kind: MeasuredKind, metric: string, path: string): StrataError {
  const near = nearMetric(kind, metric);
  const hint = near === undefined ? "" : `; did you mean "${near}"?`;
  const message = `is ${JSON.stringify(metric.slice(0, 80))}, which ${kind} do not have${hint}`;
  return invalid(action, [{ path, message, allowed: metricNames(kind).join(", ") }]);
}

const niceSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400];

/** The first usual step that is not shorter. */
function niceStep(seconds: number): number {
  return niceSteps.find((step) => step >= seconds) ?? Math.ceil(seconds / 86_400) * 86_400;
}
