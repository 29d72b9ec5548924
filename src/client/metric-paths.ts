import type { MetricSeriesQuery } from "./client.ts";

export function metricsPath(project: string | undefined): string {
  return project === undefined ? "/v1/metrics" : `/v1/projects/${encodeURIComponent(project)}/metrics`;
}

export function metricSeriesPath({ kind, ref, metric, from, until, stepSeconds }: MetricSeriesQuery): string {
  const query = new URLSearchParams({ kind, name: ref.name, metric });
  for (const [name, value] of Object.entries({ from, until, step: stepSeconds })) {
    if (value !== undefined) query.set(name, String(value));
  }
  return `${metricsPath(ref.project)}?${query}`;
}
