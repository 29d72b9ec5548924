import { describe, expect, test } from "vitest";
import type { ZodType } from "zod";
import { type Certificate, certificateKind } from "./certificate.ts";
import { type Group, type GroupSpec, groupKind, type MemberTemplate } from "./group.ts";
import { type HealthCheck, healthCheckSchema } from "./instance.ts";
import {
  type BalancerTarget,
  type LoadBalancer,
  type LoadBalancerSpec,
  type LoadBalancerStatus,
  loadBalancerKind,
  loadBalancerSpecSchema,
} from "./load-balancer.ts";
import type { Metric } from "./scaling/policy-schema.ts";
import { decisionRetention, type ScalingDecision, scalingDecisionKind } from "./scaling-decision.ts";

const template: Partial<MemberTemplate> = { type: "container", image: "debian" };

/** The messages of all errors, `PATH MESSAGE`. */
function errorsOf(schema: ZodType, value: unknown): string[] {
  const parsed = schema.safeParse(value);
  return parsed.success ? [] : parsed.error.issues.map(({ path, message }) => `${path.join(".")} ${message}`);
}

describe("a group", () => {
  const errors = (spec: object) => errorsOf(groupKind.spec as ZodType, { template, ...spec });

  test("has defaults for everything but its template", () => {
    const spec: GroupSpec = groupKind.spec.parse({ template });
    expect(spec).toMatchObject({ min: 1, max: 1, warm: 0, lends: true, policies: [] });
    const group: Pick<Group, "status"> = { status: groupKind.initialStatus() };
    expect(groupKind.status.parse(group.status)).toEqual(group.status);
  });

  test("refuses numbers that contradict each other", () => {
    expect(errors({ min: 3, max: 2 })).toEqual(["min is 3, more than max (2)"]);
    expect(errors({ min: 1, max: 2, desired: 5 })).toEqual([
      "desired is 5; it must lie between min (1) and max (2)",
    ]);
  });

  test("refuses a metric that nobody knows", () => {
    const metric: Metric = "custom/jobs";
    expect(errors({ policies: [{ type: "target", name: "a", metric, target: 1 }] })).toEqual([]);
    expect(errors({ policies: [{ type: "target", name: "a", metric: "cpus", target: 1 }] })[0]).toMatch(
      /^policies\.0\.metric must be one of cpu, memory, requests, latency, queue or custom\/NAME$/,
    );
  });

  test("has no fields of one instance alone in its template", () => {
    expect(errors({ template: { ...template, ipAddress: "10.0.0.5" } })[0]).toMatch(/ipAddress/);
  });
});

describe("a load balancer", () => {
  const minimal = { listeners: [{ port: 80 }], group: "web", targetPort: 8080 };
  const errors = (spec: object) => errorsOf(loadBalancerKind.spec as ZodType, { ...minimal, ...spec });

  test("needs a listener, a target and a port", () => {
    const spec: LoadBalancerSpec = loadBalancerKind.spec.parse(minimal);
    expect(spec.listeners[0]?.allowFrom).toEqual(["0.0.0.0/0", "::/0"]);
    expect(errors({ instances: ["a"] })).toEqual(["group or instances must be given, and not both"]);
    expect(errors({ listeners: [{ port: 80 }, { port: 80 }] })).toEqual([
      "listeners.1.port is 80 a second time",
    ]);
    expect(errors({ listeners: [{ port: 443, protocol: "https" }] })).toEqual([
      "listeners.0.certificates must name one for protocol https",
    ]);
    expect(errors({ listeners: [{ port: 80 }, { port: 81, protocol: "tcp" }] })).toHaveLength(1);
    expect(errors({ listeners: [{ port: 80, protocol: "tcp" }], sticky: "cookie" })).toHaveLength(1);
  });

  test("tells where it leads", () => {
    const target: BalancerTarget = {
      uid: "0123456789abcdef",
      name: "web-1",
      address: "10.0.0.5",
      port: 8080,
      network: "0123456789abcdeg",
      draining: false,
    };
    const status: LoadBalancerStatus = { ...loadBalancerKind.initialStatus(), targets: [target] };
    const balancer: Pick<LoadBalancer, "status"> = { status };
    expect(loadBalancerKind.status.parse(balancer.status)).toEqual(status);
  });
});

test("a health check says what it needs", () => {
  const check: HealthCheck = healthCheckSchema.parse({ type: "http", port: 8080 });
  expect(check.path).toBe("/");
  expect(errorsOf(healthCheckSchema, { type: "command", port: 1 })).toEqual([
    "command must be given for type command",
    "port is not for type command",
  ]);
});

test("a certificate is one's own or an authority's", () => {
  const status: Certificate["status"] = certificateKind.initialStatus();
  expect(certificateKind.status.parse(status)).toEqual(status);
  expect(errorsOf(certificateKind.spec as ZodType, {})).toEqual([" needs own or acme, and not both"]);
  expect(errorsOf(certificateKind.spec as ZodType, { acme: { domains: ["*.a.de"] } })[0]).toMatch(/domain/);
});

test("a decision says who wanted what", () => {
  const spec: ScalingDecision["spec"] = {
    group: { name: "web", uid: "0123456789abcdef" },
    from: 1,
    to: 3,
    wants: [{ policy: "term", members: 3, reason: "september" }],
    winner: "term",
    limits: [],
  };
  expect(scalingDecisionKind.spec.parse(spec)).toEqual(spec);
  expect(decisionRetention).toBeGreaterThan(100);
});

test("a path that HTTP does not have is refused", () => {
  const schemas = [healthCheckSchema, loadBalancerSpecSchema.shape.healthCheck];
  for (const path of ["/\u0142", "/a b", "/\u0000", "/a\nb", "a"]) {
    for (const schema of schemas) {
      const parsed = schema.safeParse({
        type: "http",
        ...(schema === healthCheckSchema && { port: 1 }),
        path,
      });
      expect(parsed.error?.issues.map((issue) => issue.path)).toEqual([["path"]]);
    }
  }
  expect(healthCheckSchema.parse({ type: "http", port: 1, path: "/up?a='1'#x" }).path).toBe("/up?a='1'#x");
});
