import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createHttpClient, type HttpClient } from "../client/http-client.ts";
import { systemClock, toTimestamp } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { groupKind } from "../kinds/group.ts";
import { hostKind } from "../kinds/host.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Resource } from "../kinds/kind.ts";
import { projectKind } from "../kinds/project.ts";
import { systemPrincipal as system } from "../services/principal.ts";
import { createImage } from "../services/testing.ts";
import { testCertificate } from "./test-certificate.ts";
import { raw, startTestApi, type TestApi } from "./testing.ts";
import { readExposition } from "./testing-exposition.ts";

let api: TestApi;
let client: HttpClient;
let web: Resource;
let group: Resource;
const instance = "/instances/default/web";

beforeEach(async () => {
  api = await startTestApi();
  client = createHttpClient({ socketPath: api.socketPath });
  await createImage(api.services);
  const spec = { type: "container", image: "debian" };
  web = await client.create(instanceKind, { project: "default", name: "web", spec });
  group = await client.create(groupKind, { project: "default", name: "lms", spec: { template: spec } });
});

afterEach(async () => {
  client.close();
  await api.close();
});

const now = (aheadMs = 0) => toTimestamp(systemClock.now() + aheadMs);
const report = (values: Record<string, number>, more: object = {}) =>
  client.reportMetrics({
    at: now(),
    samples: [{ subject: instance, uid: web.metadata.uid, values, ...more }],
  });

/** The refusal's code and what its first field says. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof StrataError)) throw error;
    const [field] = error.fields;
    return `${error.code} ${field ? `${field.path} ${field.message} (${field.allowed})` : error.message}`;
  }
  return "was accepted";
}

describe("report and read", () => {
  test("a round of samples is there at once, as the newest and as a series", async () => {
    expect(await report({ cpu: 12.5, memory: 100 })).toEqual({ recorded: 2, unknown: [] });
    expect(await client.currentMetrics("instances", { project: "default" })).toEqual([
      {
        project: "default",
        name: "web",
        uid: web.metadata.uid,
        at: expect.any(String),
        values: { cpu: 12.5, memory: 100 },
      },
    ]);
    const series = await client.metricSeries({
      kind: "instances",
      ref: { project: "default", name: "web" },
      metric: "cpu",
      from: now(-60_000),
      until: now(60_000),
      stepSeconds: 30,
    });
    expect(series).toMatchObject({ unit: "percent", stepSeconds: 30, uid: web.metadata.uid });
    expect(series.points).toEqual([{ at: expect.any(String), mean: 12.5, min: 12.5, max: 12.5 }]);
  });

  test("what has gone is told and left out; the rest counts", async () => {
    const { uid } = web.metadata;
    const samples = [
      { subject: instance, uid: "0000000000000000", values: { cpu: 1 } },
      { subject: "/instances/default/gone", uid, values: { cpu: 1 } },
      { subject: instance, uid, values: { cpu: 2 } },
    ];
    const answer = await client.reportMetrics({ at: now(), samples });
    expect(answer).toEqual({ recorded: 1, unknown: [instance, "/instances/default/gone"] });
    expect((await client.currentMetrics("instances", {}))[0]?.values).toEqual({ cpu: 2 });
  });

  test("a host's metrics", async () => {
    const host = await client.create(hostKind, { name: "alpha", spec: {} });
    const samples = [{ subject: "/hosts/alpha", uid: host.metadata.uid, values: { load: 0.5 } }];
    await client.reportMetrics({ at: now(), samples });
    expect(await client.currentMetrics("hosts", {})).toMatchObject([
      { name: "alpha", values: { load: 0.5 } },
    ]);
    const series = await client.metricSeries({ kind: "hosts", ref: { name: "alpha" }, metric: "load" });
    expect(series.points).toHaveLength(1);
  });

  test("a group's own metrics", async () => {
    const ref = { project: "default", name: "lms" };
    await client.pushMetrics(ref, { students: 400 });
    expect(await client.currentMetrics("groups", {})).toMatchObject([
      { name: "lms", uid: group.metadata.uid, values: { "custom/students": 400 } },
    ]);
    const series = await client.metricSeries({ kind: "groups", ref, metric: "custom/students" });
    expect(series.points).toMatchObject([{ mean: 400 }]);
  });
});

describe("refusals", () => {
  test("of reports", async () => {
    const post = async (body: unknown) => {
      const answer = await raw(api.socketPath, "POST", "/v1/metrics", { body: JSON.stringify(body) });
      return `${answer.status} ${answer.json.fields?.[0]?.path} ${answer.json.fields?.[0]?.message}`;
    };
    const entry = (values: unknown, subject = instance) => ({ subject, uid: web.metadata.uid, values });
    const of = (...samples: unknown[]) => ({ at: now(), samples });
    expect(await post({ at: now() })).toBe("400 samples must be a list");
    expect(await post({ at: "yesterday", samples: [] })).toBe("400 at must be a time");
    expect(await post({ at: now(120_000), samples: [] })).toMatch(/400 at is .*, in the future/);
    expect(await post(of(entry({ cpus: 1 })))).toMatch(
      /400 samples\[0\].values is "cpus", which instances do not have; did you mean "cpu"\?/,
    );
    expect(await post(of(entry({ "custom/x": 1 })))).toMatch(/which instances do not have/);
    expect(await post(of(entry({ cpu: null })))).toMatch(/400 samples\[0\].values.cpu is null, not a finite/);
    expect(await post(of(entry({ cpu: 1 }), entry({ cpu: "1" })))).toMatch(/samples\[1\].values.cpu is "1"/);
    expect(await post(of(entry({ cpu: 1 }, "/volumes/default/a")))).toMatch(/nobody measures/);
    expect(await post(of(entry({ cpu: 1 }, "/instances/../a")))).toMatch(/nobody measures/);
    expect(await post(of({ ...entry({ cpu: 1 }), more: 1 }))).toMatch(
      /samples\[0\].more is not a known field/,
    );
    expect(await post(of(...Array.from({ length: 2_501 }, () => entry({ cpu: 1, memory: 1 }))))).toBe(
      "400 samples are too many",
    );
    // Nothing of a refused report was taken.
    expect(await client.currentMetrics("instances", {})).toEqual([]);
    const infinite = await raw(api.socketPath, "POST", "/v1/metrics", {
      body: JSON.stringify(of(entry({ cpu: 7 }))).replace("7", "1e999"),
    });
    expect(infinite.status).toBe(400);
  });

  test("of pushes", async () => {
    const ref = { project: "default", name: "lms" };
    const push = (metrics: Record<string, number>, at?: string) =>
      refusal(client.pushMetrics(ref, metrics, at === undefined ? {} : { at }));
    expect(await push({})).toBe("Invalid metrics has 0 names (1 to 32)");
    expect(await push({ Students: 1 })).toMatch(/Invalid metrics.Students is no name of a metric/);
    expect(await push({ students: Number.NaN })).toMatch(/Invalid metrics.students is null, not a finite/);
    expect(await push({ students: 1 }, now(3_600_000))).toMatch(/Invalid at is .*, in the future/);
    for (let i = 0; i < 100; i += 20) {
      const names = Array.from({ length: 20 }, (_, j) => [`m${i + j}`, 1]);
      expect(await push(Object.fromEntries(names))).toBe("was accepted");
    }
    expect(await push({ more: 1 })).toMatch(/would be too many different ones \(at most 100 a group\)/);
    expect(await refusal(client.pushMetrics({ ...ref, name: "lsm" }, { a: 1 }))).toMatch(
      /NotFound .*did you mean "lms"/,
    );
  });

  test("of questions", async () => {
    const ask = async (query: string) => {
      const answer = await raw(api.socketPath, "GET", `/v1/projects/default/metrics?${query}`);
      return `${answer.status} ${answer.json.detail}`;
    };
    const web = "kind=instances&name=web&metric=cpu";
    expect(await ask("kind=volumes&name=web&metric=cpu")).toMatch(/400 .*nothing is measured/);
    expect(await ask("kind=instances&name=web&metric=latency-50")).toMatch(/400 .*instances do not have/);
    expect(await ask("kind=instances&name=wbe&metric=cpu")).toMatch(/404 .*did you mean "web"/);
    expect(await ask("kind=instances&name=web")).toMatch(/400 .*metric is required/);
    expect(await ask(`${web}&from=never`)).toMatch(/400 .*from must be a time/);
    expect(await ask(`${web}&step=0`)).toMatch(/400 .*step is 0 ms/);
    expect(await ask(`${web}&from=2020-01-01T00:00:00Z&step=1`)).toMatch(/400 .*more than 20000/);
    expect(await ask(`${web}&until=2020-01-01T00:00:00Z&from=2021-01-01T00:00:00Z`)).toMatch(
      /400 .*until is before from/,
    );
    expect(await ask(`${web}&uid=1`)).toMatch(/400 .*not a known parameter/);
  });
});

describe("who may what, and the exposition", () => {
  const certificate = testCertificate();
  let port: number;
  beforeEach(async () => {
    ({ port } = await api.api.listenHttps({ host: "127.0.0.1", port: 0, ...certificate }));
    await client.create(projectKind, { name: "other", spec: {} });
  });

  async function as(role: string, project?: string): Promise<{ client: HttpClient; secret: string }> {
    const spec = { role, ...(project === undefined ? {} : { project }) };
    const { secret } = await api.services.tokens.issue(system, { name: `${role}-${project ?? "all"}`, spec });
    const url = `https://127.0.0.1:${port}`;
    return { client: createHttpClient({ url, ca: certificate.cert, token: secret }), secret };
  }

  test("only operators report; members push; viewers read their project", async () => {
    await report({ cpu: 1 });
    const ref = { project: "default", name: "lms" };
    const question = { kind: "instances", ref: { project: "default", name: "web" }, metric: "cpu" } as const;
    const { client: member } = await as("member", "default");
    const { client: viewer } = await as("viewer", "default");
    const { client: stranger } = await as("member", "other");
    expect(await refusal(member.reportMetrics({ at: now(), samples: [] }))).toMatch(/^Forbidden/);
    expect(await refusal(member.pushMetrics(ref, { a: 1 }))).toBe("was accepted");
    expect(await refusal(viewer.pushMetrics(ref, { a: 1 }))).toMatch(/^Forbidden/);
    expect(await refusal(stranger.pushMetrics(ref, { a: 1 }))).toMatch(/^NotFound .*project "default"/);
    expect((await viewer.metricSeries(question)).points).toHaveLength(1);
    expect(await viewer.currentMetrics("instances", {})).toHaveLength(1);
    expect(await refusal(viewer.currentMetrics("hosts", {}))).toMatch(/^Forbidden/);
    expect(await refusal(stranger.metricSeries(question))).toMatch(/^NotFound/);
    expect(await stranger.currentMetrics("instances", {})).toEqual([]);
    for (const one of [member, viewer, stranger]) one.close();
  });

  test("Prometheus reads it: everything over the socket, one project with its token", async () => {
    const host = await client.create(hostKind, { name: "alpha", spec: {} });
    const hosts = [{ subject: "/hosts/alpha", uid: host.metadata.uid, values: { cpu: 3 } }];
    await client.reportMetrics({ at: now(), samples: hosts });
    await report({ cpu: 12.5 });
    const all = await raw(api.socketPath, "GET", "/metrics");
    expect(all.headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
    const samples = readExposition(all.text);
    const valueNamed = (name: string) => samples.find((one) => one.name === name)?.value;
    expect(valueNamed("strata_instance_cpu_percent")).toBe(12.5);
    expect(valueNamed("strata_host_cpu_percent")).toBe(3);
    expect(valueNamed("process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
    expect(valueNamed("process_cpu_seconds_total")).toBeGreaterThan(0);
    expect(valueNamed("strata_store_revision")).toBe(await api.services.revision());
    const requests = samples.filter(({ name }) => name === "strata_api_requests_total");
    expect(requests.find(({ labels }) => labels.status === "2xx")?.value).toBeGreaterThanOrEqual(4);
    const names = async (role: string, project: string) => {
      const { secret } = await as(role, project);
      const text = await fetchText(port, certificate.cert, secret);
      return readExposition(text).map(({ name, labels }) => `${name} ${labels.project}`);
    };
    expect(await names("viewer", "default")).toEqual(["strata_instance_cpu_percent default"]);
    expect(await names("viewer", "other")).toEqual([]);
  });
});

async function fetchText(port: number, ca: string, token: string): Promise<string> {
  const { request } = await import("node:https");
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}` };
    const options = { host: "127.0.0.1", port, path: "/metrics", ca, headers, agent: false as const };
    request(options, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => (response.statusCode === 200 ? resolve(text) : reject(new Error(text))));
    })
      .on("error", reject)
      .end();
  });
}
