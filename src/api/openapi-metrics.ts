import type { JsonObject } from "../core/json.ts";
import { customMetricRule, measuredKinds } from "../kinds/metric-names.ts";
import { metricLimits } from "../metrics/metric-store.ts";
import { currentMs, pushLimits } from "../services/metrics.ts";
import { operation, parameters, queryParameter } from "./openapi-parts.ts";

const tag = "Metrics";
const text: JsonObject = { type: "string" };
const time: JsonObject = { type: "string", format: "date-time" };
const number: JsonObject = { type: "number" };
const values: JsonObject = { type: "object", additionalProperties: number };

function object(properties: JsonObject, optional: readonly string[] = []): JsonObject {
  const required = Object.keys(properties).filter((name) => !optional.includes(name));
  return { type: "object", properties, required };
}

function list(items: JsonObject): JsonObject {
  return { type: "array", items };
}

const place: JsonObject = { project: text, name: text, uid: text };

const series = object(
  {
    kind: text,
    ...place,
    metric: text,
    unit: text,
    from: time,
    until: time,
    stepSeconds: number,
    points: list(object({ at: time, mean: number, min: number, max: number })),
  },
  ["project"],
);

const current = object({ items: list(object({ ...place, at: time, values }, ["project"])) });

const report = object({
  at: time,
  samples: {
    ...list(object({ subject: { ...text, description: "`/instances/PROJECT/NAME`." }, uid: text, values })),
    description: `At most ${metricLimits.samplesPerReport} values in all.`,
  },
});

const push = object(
  {
    metrics: {
      ...values,
      description: `Names of ${customMetricRule}; at most ${pushLimits.metricsPerPush} at once.`,
    },
    at: { ...time, description: "Left out: now." },
  },
  ["at"],
);

const kind: JsonObject = {
  ...queryParameter("kind", { type: "string", enum: [...measuredKinds] }),
  required: true,
};

const range: JsonObject[] = [
  kind,
  { ...queryParameter("name", text), required: true },
  { ...queryParameter("metric", text), required: true },
  queryParameter("from", time, "Left out: an hour before `until`."),
  queryParameter("until", time, "Exclusive. Left out: now."),
  queryParameter("step", { type: "integer", minimum: 1 }, "Seconds. Left out: about 240 steps."),
];

export function metricPaths(): JsonObject {
  return {
    "/v1/metrics": {
      get: read("getClusterMetrics", "One metric of a host over time.", range, series),
      post: operation({
        id: "reportMetrics",
        summary: "For agents: samples of one moment. Subjects that are gone are told back.",
        tag,
        body: report,
        answers: { 200: object({ recorded: number, unknown: list(text) }) },
      }),
    },
    "/v1/metrics/current": {
      get: read("getAllCurrentMetrics", currentSummary, [kind], current),
    },
    "/v1/projects/{project}/metrics": {
      get: read(
        "getMetrics",
        "One metric of one resource over time.",
        [...parameters("project"), ...range],
        series,
      ),
    },
    "/v1/projects/{project}/metrics/current": {
      get: read("getCurrentMetrics", currentSummary, [...parameters("project"), kind], current),
    },
    "/v1/projects/{project}/groups/{name}/metrics": {
      post: operation({
        id: "pushGroupMetrics",
        summary: "Values that only the application knows: the group's metrics `custom/NAME`.",
        tag,
        parameters: parameters("project", "name"),
        body: push,
        answers: { 204: null },
      }),
    },
    "/metrics": {
      get: {
        ...operation({
          id: "getExposition",
          summary: "For Prometheus: the newest samples that the caller may see, as text (0.0.4).",
          tag,
          answers: {},
        }),
        responses: {
          200: { description: "As it is now.", content: { "text/plain": { schema: text } } },
          default: { $ref: "#/components/responses/Problem" },
        },
      },
    },
  };
}

const currentSummary = `The newest values of all resources of a kind; none is older than ${currentMs / 1_000} s.`;

function read(id: string, summary: string, own: JsonObject[], schema: JsonObject): JsonObject {
  return operation({ id, summary, tag, parameters: own, answers: { 200: schema } });
}
