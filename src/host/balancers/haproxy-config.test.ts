import { describe, expect, test } from "vitest";
import { balancerLimits, loadBalancerSpecSchema } from "../../kinds/load-balancer.ts";
import type { ServerRequest } from "./balancers.ts";
import {
  balancerPaths,
  largeCertificates,
  renderConfig,
  serverName,
  structureDigest,
  uidOfServer,
} from "./haproxy-config.ts";

const options = {
  paths: balancerPaths("/run/strata/balancers", "b1"),
  user: "haproxy",
  group: "haproxy",
  ipv6: true,
  large: [],
};

const server: ServerRequest = {
  uid: "0123456789abcdef",
  address: "10.0.0.2",
  port: 80,
  source: "100.64.0.1",
  draining: false,
};

function specOf(change: object) {
  return loadBalancerSpecSchema.parse({
    listeners: [{ port: 80 }],
    group: "web",
    targetPort: 80,
    ...change,
  });
}

const specs: Record<string, object> = {
  plain: {},
  "https with a redirection, cookie, HTTP/2 and a health check": {
    listeners: [
      { port: 80, redirectTo: 443 },
      {
        port: 443,
        protocol: "https",
        certificates: ["site", "other"],
        allowFrom: ["10.0.0.0/8", "fd00::/8"],
      },
    ],
    sticky: "cookie",
    targetProtocol: "http2",
    algorithm: "round-robin",
    healthCheck: { type: "http", path: "/health?a=1#x" },
    slowStartSeconds: 20,
    maxPerInstance: 10,
    queueSeconds: 120,
  },
  "without an access log": { accessLog: false },
  "tls by source": {
    listeners: [
      { port: 993, protocol: "tls", certificates: ["mail"] },
      { port: 143, protocol: "tcp" },
    ],
    sticky: "source",
    queueSeconds: 0,
  },
};

describe("configuration", () => {
  test.each(Object.entries(specs))("%s", (_name, change) => {
    const servers = [server, { ...server, uid: "2", address: "fd00::2", draining: true }];
    expect(renderConfig(specOf(change), servers, options)).toMatchSnapshot();
  });

  test("without IPv6 listens on IPv4 only", () => {
    const text = renderConfig(specOf({}), [], { ...options, ipv6: false });
    expect(text).toContain("bind *:80");
    expect(text).not.toContain("bind :::80");
  });

  test("only what needs a reload changes the digest, and the text tells it", () => {
    const digest = structureDigest(specOf({}), options);
    const text = renderConfig(specOf({}), [server], options);
    expect(text).toContain(`description ${digest}`);
    const other = (change: object) => structureDigest(specOf(change), options) !== digest;
    expect(other({ group: undefined, instances: ["a"] })).toBe(false);
    expect(other({ targetPort: 81 })).toBe(false);
    expect(other({ listeners: [{ port: 81 }] })).toBe(true);
    expect(other({ healthCheck: { intervalMs: 500 } })).toBe(true);
    expect(other({ maxPerInstance: 3 })).toBe(true);
    expect(other({ accessLog: false })).toBe(true);
  });

  test("no client stays with who only holds requests", () => {
    const lines = renderConfig(specOf({ sticky: "cookie" }), [], options).split("\n");
    const given = lines.find((line) => line.includes("use-server"));
    expect(given).toContain("!{ req.cook(strata-instance) holder }");
    const told = lines.find((line) => line.includes("Set-Cookie"));
    expect(told).toContain("or { srv_name holder }");
  });

  test("as many certificates as a listener may have fit into a line of HAProxy's", () => {
    const certificates = Array.from({ length: balancerLimits.maxCertificates }, (_, index) => `c${index}`);
    const listeners = [{ port: 443, protocol: "https", certificates }];
    const text = renderConfig(specOf({ listeners }), [], options);
    const words = text.split("\n").map((line) => line.trim().split(/\s+/).length);
    expect(Math.max(...words)).toBeLessThanOrEqual(64);
    const more = [{ port: 443, protocol: "https", certificates: [...certificates, "x"] }];
    expect(() => specOf({ listeners: more })).toThrow(/certificates/);
  });

  test("a server of another source or port is another server of the same instance", () => {
    const names = [server, { ...server, source: "100.64.0.3" }, { ...server, port: 81 }].map(serverName);
    expect(new Set(names).size).toBe(3);
    expect(new Set(names.map(uidOfServer))).toEqual(new Set([server.uid]));
  });
});

test("the content of a certificate is part of the structure only when no command can exchange it", () => {
  const of = (name: string, bytes: number, content: string): string => {
    const large = largeCertificates(new Map([[name, content.repeat(bytes)]]));
    return structureDigest(specOf({}), { ...options, large });
  };
  expect(of("site", 12_288, "a")).toBe(of("site", 12_288, "b"));
  expect(of("site", 12_289, "a")).not.toBe(of("site", 12_288, "a"));
  expect(of("site", 12_289, "a")).not.toBe(of("site", 12_289, "b"));
  const one: [string, string] = ["one", "1".repeat(20_000)];
  const two: [string, string] = ["two", "2".repeat(20_000)];
  expect(largeCertificates(new Map([one, two]))).toEqual(largeCertificates(new Map([two, one])));
});
