import type { FastifyInstance } from "fastify";
import type { Services } from "../services/services.ts";
import { expositionType, type Family, familiesOf, renderExposition } from "./exposition.ts";
import { Query } from "./query.ts";
import type { RequestCounts } from "./request-counts.ts";

type InProject = { Params: { project?: string } };

/** Metrics: reported by agents, pushed by members, read by all; and the exposition for Prometheus. */
export function installMetricRoutes(
  app: FastifyInstance,
  parts: { services: Services; counts: RequestCounts; version: string },
): void {
  const { services } = parts;
  const { metrics } = services;
  app.post("/v1/metrics", async (request) => {
    new Query(request.query, []);
    return metrics.report(request.principal, request.body);
  });
  app.post<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/groups/:name/metrics",
    async (request, reply) => {
      new Query(request.query, []);
      await metrics.push(request.principal, request.params, request.body);
      return reply.code(204).send();
    },
  );
  for (const base of ["/v1/metrics", "/v1/projects/:project/metrics"]) {
    app.get<InProject>(base, async (request) => {
      const query = new Query(request.query, ["kind", "name", "metric", "from", "until", "step"]);
      return metrics.range(request.principal, {
        ...request.params,
        kind: query.requireText("kind"),
        name: query.requireText("name"),
        metric: query.requireText("metric"),
        from: query.text("from"),
        until: query.text("until"),
        stepSeconds: query.integer("step"),
      });
    });
    app.get<InProject>(`${base}/current`, async (request) => {
      const kind = new Query(request.query, ["kind"]).requireText("kind");
      return { items: await metrics.current(request.principal, kind, request.params.project) };
    });
  }
  app.get("/metrics", async (request, reply) => {
    new Query(request.query, []);
    const families = familiesOf(metrics.visibleSamples(request.principal));
    // The daemon is nobody's who sees one project only.
    if (request.principal.project === undefined) {
      families.push(...daemonFamilies(parts.version, parts.counts, await services.revision()));
    }
    return reply.type(expositionType).send(renderExposition(families));
  });
}

function daemonFamilies(version: string, counts: RequestCounts, revision: number): Family[] {
  const { user, system } = process.cpuUsage();
  const one = (name: string, help: string, type: Family["type"], value: number): Family => ({
    name,
    help,
    type,
    values: [{ labels: {}, value }],
  });
  const requests = [...counts.entries()].map(([status, value]) => ({ labels: { status }, value }));
  return [
    one(
      "process_cpu_seconds_total",
      "CPU time of the daemon, user and system.",
      "counter",
      (user + system) / 1e6,
    ),
    one(
      "process_resident_memory_bytes",
      "Resident memory of the daemon.",
      "gauge",
      process.memoryUsage.rss(),
    ),
    {
      name: "strata_api_requests_total",
      help: "Requests that the API answered, by class of the status.",
      type: "counter",
      values: requests,
    },
    {
      name: "strata_build_info",
      help: "Version of the daemon.",
      type: "gauge",
      values: [{ labels: { version }, value: 1 }],
    },
    one("strata_store_revision", "Changes that the store has taken so far.", "gauge", revision),
  ];
}
