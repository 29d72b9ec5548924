import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import { subnetKind } from "../../kinds/subnet.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.cwd = await mkdtemp(join(tmpdir(), "stack-"));
  terminal.client.react = daemon;
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

/** A daemon that does everything at once, and keeps what is in use. */
function daemon(resource: Resource): Resource | undefined {
  const status = resource.status as object;
  if (resource.metadata.deletedAt) {
    const user = [...terminal.client.resources.values()].find((other) => uses(other, resource));
    if (user) throw new StrataError("Invalid", `${user.metadata.name} uses ${resource.metadata.name}`);
    return undefined;
  }
  const missing = groupsOf(resource).find(
    (name) => name !== resource.metadata.name && !terminal.client.resources.has(`/security-groups/s/${name}`),
  );
  if (missing) throw new StrataError("Invalid", `there is no security group ${missing}`);
  if (resource.kind === "Image") return { ...resource, status: { ...status, state: "ready" } };
  const since = "2030-01-01T00:00:00.000Z";
  const conditions = [{ type: "Ready", status: "true", reason: "Answers", message: "", since }];
  const observed = {
    ...status,
    conditions,
    state: "running",
    observedGeneration: resource.metadata.generation,
  };
  if (resource.kind === "Instance") return { ...resource, status: observed };
  const state = states[resource.kind];
  return state === undefined ? resource : { ...resource, status: { ...observed, state } };
}

const states: Record<string, string> = {
  NetworkInterface: "attached",
  Address: "bound",
  PublishedPort: "active",
};

function groupsOf(resource: Resource): string[] {
  const spec = resource.spec as { ingress?: { group?: string }[]; securityGroups?: string[] };
  const named = [...(spec.securityGroups ?? []), ...(spec.ingress ?? []).flatMap((rule) => rule.group ?? [])];
  return named.filter((name) => name !== "default");
}

function uses(user: Resource, used: Resource): boolean {
  if (user.metadata.uid === used.metadata.uid) return false;
  const { name } = used.metadata;
  const spec = user.spec as JsonObject;
  if (used.kind === "SecurityGroup") return groupsOf(user).includes(name);
  if (used.kind === "RouteTable") return spec.routeTable === name;
  if (used.kind === "Peering") return JSON.stringify(user.spec).includes(`"via":"${name}"`);
  if (used.kind === "Subnet") return spec.subnet === name;
  if (used.kind === "Network") return spec.network === name || spec.peerNetwork === name;
  if (used.kind === "NetworkInterface") return false;
  return used.kind === "Instance" && user.kind === "NetworkInterface" && spec.instance === name;
}

const paths = () => [...terminal.client.resources.keys()].sort();
const spec = (path: string) => terminal.client.resources.get(path)?.spec;
const write = (text: string) => writeFile(join(terminal.cwd, "s.yaml"), `stack: s\n${text}`);
async function up(text: string, ...more: string[]) {
  await write(text);
  const timeout = more.includes("--timeout") ? [] : ["--timeout", "5"];
  return await terminal.run("up", "s.yaml", "--yes", ...timeout, ...more);
}

test("the example is a stack that comes, stays as it is, and goes in the right order", async () => {
  const example = await readFile(new URL("../../../examples/networks.yaml", import.meta.url), "utf8");
  const text = example.replace("stack: networks\n", "");
  const first = await up(text);
  expect(first).toMatchObject({ status: 0 });
  const made = new Set(paths().map((path) => path.split("/")[1]));
  expect([...made]).toEqual([
    "addresses",
    "images",
    "instances",
    "network-interfaces",
    "networks",
    "peerings",
    "projects",
    "published-ports",
    "route-tables",
    "security-groups",
    "subnets",
  ]);
  const second = await up(text);
  expect(second.err).toContain("s: nothing to change");
  const gone = await terminal.run("down", "s.yaml", "--yes", "--timeout", "5");
  expect([gone.status, gone.out, paths()]).toEqual([0, "s: all gone\n", []]);
});

test("what may change in place does", async () => {
  const of = (instance: string, port: number) => `
images: { i: { debian: bookworm } }
networks: { n: { cidr: 10.0.0.0/16 } }
securityGroups: { g: { ingress: [{ protocol: tcp, ports: ${port}, cidr: 0.0.0.0/0 }] } }
instances: { a: { type: container, image: i, network: n }, b: { type: container, image: i, network: n } }
networkInterfaces: { c: { network: n, instance: ${instance} } }
addresses: { x: { instance: ${instance} } }
publishedPorts: { p: { port: 80, instance: ${instance}, targetPort: ${port} } }
`;
  expect((await up(of("a", 80))).status).toBe(0);
  const { err, status } = await up(of("b", 8080));
  expect(status).toBe(0);
  for (const change of [
    "~ change security group g (ingress)",
    "~ change network interface c (instance)",
    "~ change address x (instance)",
    "~ change published port p (instance, targetPort)",
  ]) {
    expect(err).toContain(change);
  }
  expect(spec("/addresses/s/x")).toEqual({ instance: "b" });
  expect(spec("/security-groups/s/g")).toMatchObject({ ingress: [{ ports: "8080" }] });
});

test("a port that cannot be published fails the stack with its reason", async () => {
  const text = `
images: { i: { debian: bookworm } }
instances: { a: { type: container, image: i } }
publishedPorts: { p: { port: 80, instance: a } }
`;
  terminal.client.react = (resource) => {
    const next = daemon(resource);
    if (next?.kind !== "PublishedPort") return next;
    return { ...next, status: { ...(next.status as object), state: "failed", message: "nginx has port 80" } };
  };
  const { status, err } = await up(text, "--timeout", "2");
  expect(status).toBe(5);
  expect(err).toContain('published port "p" is not in force: nginx has port 80');
});

describe("groups that name one another", () => {
  const circle = `securityGroups:
  web: { ingress: [{ protocol: tcp, ports: 80, group: lb }, { protocol: any, group: web }] }
  lb: { ingress: [{ protocol: any, group: web }] }
`;
  test("come and go", async () => {
    expect(await up(circle)).toMatchObject({ status: 0 });
    expect(spec("/security-groups/s/web")).toMatchObject({ ingress: [{ group: "lb" }, { group: "web" }] });
    expect(spec("/security-groups/s/lb")).toMatchObject({ ingress: [{ group: "web" }] });
    expect((await up(circle)).err).toContain("nothing to change");
    expect(await terminal.run("down", "s", "-p", "s", "--yes", "--timeout", "5")).toMatchObject({
      status: 0,
    });
    expect(paths()).toEqual([]);
  });

  test("one that is left out goes after what named it has changed", async () => {
    await up(circle);
    const { status, err } = await up(
      "securityGroups: { web: { ingress: [{ protocol: tcp, cidr: 0.0.0.0/0 }] } }",
    );
    expect([status, err]).toEqual([0, expect.stringContaining("- delete security group lb")]);
    expect(paths()).toEqual(["/projects/s", "/security-groups/s/web"]);
  });
});

test("a network that is replaced takes along what cannot do without it, and nothing else", async () => {
  const of = (range: string, peer: string) => `
images: { i: { debian: bookworm } }
networks:
  n: { cidr: ${range}.0.0/16, subnets: custom }
  m: { cidr: 10.7.0.0/16 }
  o: { cidr: 10.6.0.0/16 }
peerings: { p: { network: m, peerNetwork: ${peer} } }
routeTables: { t: { network: m, routes: [{ destination: 10.0.0.0/8, target: peering, via: p }] } }
subnets: { s: { network: n, cidr: ${range}.1.0/24 } }
securityGroups: { g: {} }
instances:
  a: { type: container, image: i, network: n, subnet: s, securityGroups: [g] }
  b: { type: container, image: i, network: m }
addresses: { x: { instance: a }, y: { instance: b } }
`;
  const first = await up(of("10.1", "o"));
  expect(first.status).toBe(0);
  const refused = await up(of("10.2", "o"));
  expect(refused.status).toBe(4);
  expect(refused.err).toContain("instances.a: spec.subnet: cannot change in place");
  const { err, status } = await up(of("10.2", "o"), "--replace");
  const changes = err.split("\n").filter((line) => /^ {2}[±~+-] /.test(line));
  expect(changes).toEqual([
    "  ± replace network n (cidr)",
    "  ± replace subnet s (cidr)",
    "  ± replace instance a (network, subnet)",
    "  ~ change address x (instance)",
  ]);
  expect(status).toBe(0);
  const moved = await up(of("10.2", "n"), "--replace");
  expect(moved.status).toBe(0);
  expect(moved.err).toContain("± replace peering p (peerNetwork)\n  ~ change route table t (peering)\n");
  expect(spec("/route-tables/s/t")).toMatchObject({ routes: [{ via: "p" }] });
});

test("what comes with a network or a project is nobody's stack", async () => {
  await up("networks: { n: {} }");
  const labels = { "strata/stack": "s" };
  terminal.client.seed(subnetKind as unknown as Kind, {
    name: "n",
    project: "s",
    labels,
    spec: { network: "n", cidr: "10.1.0.0/16" },
  });
  const auto = terminal.client.resources.get("/subnets/s/n");
  if (auto) auto.metadata.owner = { kind: "Network", name: "n", uid: "x" };
  terminal.client.seed(securityGroupKind as unknown as Kind, { name: "default", project: "s", spec: {} });
  expect((await up("networks: { n: {} }")).err).toContain("nothing to change");
  terminal.client.resources.delete("/subnets/s/n");
  const { err } = await terminal.run("down", "s.yaml", "--yes", "--timeout", "5");
  expect(err).not.toContain("the project s stays");
});

test.each([
  [
    "a port that is none",
    "securityGroups: { g: { ingress: [{ protocol: tcp, ports: 70000, cidr: 0.0.0.0/0 }] } }",
    "s.yaml:2:58: securityGroups.g.ingress[0].ports: must be a port from 1 to 65535",
  ],
  [
    "a public range",
    "networks: { n: { cidr: 192.0.2.0/24 } }",
    "s.yaml:2:24: networks.n.cidr: must be part of 10.0.0.0/8",
  ],
  [
    "a misspelt key",
    "addresses: { a: { instnace: web } }",
    's.yaml:2:19: addresses.a.instnace: unknown key; did you mean "instance"?',
  ],
  [
    "a group that does not exist",
    "securityGroups: { web: { ingress: [{ protocol: any, group: wbe }] } }",
    's.yaml:2:19: securityGroups.web: there is no security group "wbe" in the stack or its project; did you mean "web"?',
  ],
  [
    "a subnet of nobody",
    "networks: { n: {} }\nnetworkInterfaces: { c: { network: n, subnet: m } }",
    's.yaml:3:22: networkInterfaces.c: there is no subnet "m" in the stack',
  ],
  [
    "a route by no peering",
    "networks: { n: {} }\nrouteTables: { t: { network: n, routes: [{ destination: 0.0.0.0/0, target: peering }] } }",
    "s.yaml:3:42: routeTables.t.routes[0].via: needs `via` with the target peering",
  ],
])("%s is shown with its place", async (_what, text, expected) => {
  const { status, err } = await up(text);
  expect(err).toContain(expected);
  expect(status).toBe(2);
  expect(paths()).toEqual([]);
});

test("too many rules are one error, not one each", async () => {
  const rules = Array.from({ length: 10_000 }, () => "    - { protocol: any, cidr: 0.0.0.0/0 }").join("\n");
  const { err } = await up(`securityGroups:\n  g:\n   ingress:\n${rules}\n`);
  expect(err.trim().split("\n")).toHaveLength(2);
  expect(err).toContain("has too many rules: at most 1000 in one direction");
});
