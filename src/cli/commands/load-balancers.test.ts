import { beforeEach, describe, expect, test } from "vitest";
import type { Resource } from "../../kinds/kind.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: "campus" };
  terminal.client.react = settle;
});

/** An agent that does everything at once. */
function settle(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  const observedGeneration = resource.metadata.generation;
  return { ...resource, status: { ...(resource.status as object), state: "active", observedGeneration } };
}

async function ok(...args: string[]) {
  const result = await terminal.run("load-balancer", ...args);
  expect(result).toMatchObject({ status: 0 });
  return result;
}

const spec = () => (terminal.client.resources.get("/load-balancers/campus/front") as LoadBalancer).spec;
const listeners = () =>
  spec().listeners.map(({ port, protocol, certificates, redirectTo }) => [
    port,
    protocol,
    certificates.join(),
    redirectTo,
  ]);

test("one is created in front of a group, shown and deleted", async () => {
  const { out } = await ok("create", "front", "--group", "web", "--http", "8080");
  expect(out).toMatch(/front +active +8080\/http +group web:8080 +none +0/);
  expect(spec()).toMatchObject({ group: "web", targetPort: 8080, sticky: "none" });
  expect((await ok("list")).out).toContain("8080/http");
  expect((await ok("show", "front")).out).toContain("active");
  await ok("delete", "front", "--yes");
  expect(terminal.client.resources.size).toBe(0);
});

test("listeners of several protocols, redirected to the first with TLS", async () => {
  const tls = ["--https", "443", "--https", "8443", "--certificate", "site", "--certificate", "other"];
  await ok("create", "front", "--group", "web", "--http", "80", ...tls, "--redirect", "--target-port", "81");
  expect(listeners()).toEqual([
    [80, "http", "", 443],
    [443, "https", "site,other", undefined],
    [8443, "https", "site,other", undefined],
  ]);
  expect(spec().targetPort).toBe(81);
});

test("every setting has its option", async () => {
  await ok(
    ...["create", "front", "--instance", "a", "--instance", "b", "--http", "80", "--sticky", "cookie"],
    ...["--algorithm", "round-robin", "--health-path", "/ok", "--max-per-instance", "9", "--slow-start", "3"],
    ...["--queue", "7", "--http2-targets", "--allow-from", "10.0.0.0/8"],
  );
  expect(spec()).toMatchObject({
    instances: ["a", "b"],
    sticky: "cookie",
    algorithm: "round-robin",
    healthCheck: { type: "http", path: "/ok" },
    maxPerInstance: 9,
    slowStartSeconds: 3,
    queueSeconds: 7,
    targetProtocol: "http2",
    listeners: [{ port: 80, allowFrom: ["10.0.0.0/8"] }],
  });
});

describe("a change", () => {
  beforeEach(async () => {
    const https = ["--https", "443", "--certificate", "site"];
    await ok("create", "front", "--group", "web", "--http", "80", ...https, "--allow-from", "10.0.0.0/8");
  });

  test("from a group to instances and back", async () => {
    await ok("set", "front", "--instance", "a");
    expect(spec()).toMatchObject({ instances: ["a"] });
    expect(spec().group).toBeUndefined();
    await ok("set", "front", "--group", "api");
    expect(spec()).toMatchObject({ group: "api" });
    expect(spec().instances).toBeUndefined();
  });

  test("leaves listeners as they are unless some are named", async () => {
    const before = listeners();
    await ok("set", "front", "--sticky", "source");
    expect(listeners()).toEqual(before);
    await ok("set", "front", "--certificate", "new", "--redirect");
    expect(listeners()).toEqual([
      [80, "http", "", 443],
      [443, "https", "new", undefined],
    ]);
    await ok("set", "front", "--http", "81", "--https", "443");
    expect(listeners()).toEqual([
      [81, "http", "", undefined],
      [443, "https", "new", undefined],
    ]);
    expect(spec().listeners.map(({ allowFrom }) => allowFrom[0])).toEqual(["0.0.0.0/0", "10.0.0.0/8"]);
  });

  test("of nothing is refused", async () => {
    const { status, err } = await terminal.run("load-balancer", "set", "front");
    expect(status).toBe(2);
    expect(err).toContain("name what to change");
  });
});

test.each([
  ["no port", ["--group", "web"], "name a port to listen on"],
  ["port 0", ["--http", "0"], 'a port is a number from 1 to 65535, not "0"'],
  ["a port too high", ["--tcp", "65536"], 'not "65536"'],
  ["a word for a port", ["--tls", "ssh"], 'not "ssh"'],
])("%s is refused before anything is made", async (_what, args, message) => {
  const { status, err } = await terminal.run("load-balancer", "create", "front", ...args);
  expect(status).toBe(2);
  expect(err).toContain(message);
  expect(terminal.client.resources.size).toBe(0);
});

test("one that stays failed is told, with why", async () => {
  terminal.client.react = (resource) => ({
    ...resource,
    status: {
      ...(resource.status as object),
      state: "failed",
      message: "port 80 is taken",
      observedGeneration: 1,
    },
  });
  const args = ["create", "front", "--group", "web", "--http", "80", "--timeout", "1"];
  const { status, err } = await terminal.run("load-balancer", ...args);
  expect(status).not.toBe(0);
  expect(err).toContain("port 80 is taken");
  const { out } = await ok("list");
  expect(out).toMatch(/front +failed .* port 80 is taken/);
});

test("without waiting it is shown as it is", async () => {
  terminal.client.react = (resource) => resource;
  expect((await ok("create", "front", "--group", "web", "--http", "80", "--no-wait")).out).toMatch(
    /front +\w+/,
  );
});
