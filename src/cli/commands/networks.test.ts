import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { guest, worldOf } from "../../kinds/reachability/testing-world.ts";
import type { NetworkWorld } from "../../kinds/reachability/world.ts";
import { findKind } from "../../kinds/registry.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: "campus" };
  terminal.cwd = await mkdtemp(join(tmpdir(), "networks-"));
  terminal.client.react = settle;
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

/** An agent that does everything at once. */
function settle(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  const attached = (resource.spec as { instance?: string }).instance !== undefined;
  const states: Record<string, string> = {
    Address: attached ? "bound" : "free",
    NetworkInterface: attached ? "attached" : "available",
    PublishedPort: "active",
  };
  const state = states[resource.kind];
  if (state === undefined) return resource;
  const observedGeneration = resource.metadata.generation;
  return { ...resource, status: { ...(resource.status as object), state, observedGeneration } };
}

function seed(world: NetworkWorld): void {
  for (const resource of Object.values(world).flat() as Resource[]) {
    const { name, project } = resource.metadata;
    const plural = findKind(resource.kind)?.plural;
    terminal.client.resources.set(`/${plural}/${project}/${name}`, resource);
  }
}

const shop = worldOf({
  networks: {
    shop: {
      cidr: "10.0.0.0/16",
      subnets: "custom",
      status: {
        state: "ready",
        message: "",
        cidr: "10.0.0.0/16",
        ipv6Cidr: "fd00:1::/48",
        hostAddresses: { alpha: "100.64.0.2" },
      },
    },
    default: { status: { state: "ready", cidr: "10.64.0.0/24", hostRoute: true } },
  },
  subnets: {
    outer: { network: "shop", cidr: "10.0.1.0/24", status: { index: 0, gateway: "10.0.1.1" } },
    inner: { network: "shop", cidr: "10.0.2.0/24", status: { index: 1, gateway: "10.0.2.1" } },
  },
  securityGroups: {
    web: { ingress: [{ protocol: "tcp", ports: "80", cidr: "0.0.0.0/0" }] },
    db: { ingress: [{ protocol: "tcp", ports: "5432", group: "web" }] },
  },
  instances: {
    web: guest("shop", "outer", "10.0.1.10", ["web"], {
      spec: { services: [{ name: "http", port: 80, protocol: "http" }] },
    }),
    spare: guest("shop", "outer", "10.0.1.11", ["web"]),
    db: guest("shop", "inner", "10.0.2.10", ["db"]),
  },
  addresses: { www: { instance: "web", status: { ipAddress: "203.0.113.5", state: "bound" } } },
});

const spec = (path: string) => terminal.client.resources.get(path)?.spec;
const ok = async (...argv: string[]) => {
  const outcome = await terminal.run(...argv);
  expect(outcome, argv.join(" ")).toMatchObject({ status: 0 });
  return outcome;
};

test("a network, its subnets, route tables and peerings", async () => {
  await ok("network", "create", "shop", "--cidr", "10.0.0.0/16", "--custom-subnets", "--no-internet");
  expect(spec("/networks/campus/shop")).toEqual({
    cidr: "10.0.0.0/16",
    subnets: "custom",
    internet: false,
  });
  await ok(
    "route-table",
    "create",
    "t",
    "--network",
    "shop",
    "--route",
    "0.0.0.0/0=internet",
    "--route",
    "10.8.0.0/16=p",
  );
  expect(spec("/route-tables/campus/t")).toMatchObject({
    routes: [
      { destination: "0.0.0.0/0", target: "internet" },
      { destination: "10.8.0.0/16", target: "peering", via: "p" },
    ],
  });
  await ok("subnet", "create", "inner", "--network", "shop", "--cidr", "10.0.2.0/24", "--route-table", "t");
  const subnets = await ok("subnet", "list");
  expect(subnets.out).toMatch(/inner +shop +10\.0\.2\.0\/24/);
  await ok("network", "peer", "shop", "partner/warehouse");
  expect(spec("/peerings/campus/shop-warehouse")).toEqual({
    network: "shop",
    peerProject: "partner",
    peerNetwork: "warehouse",
  });
  const refused = await terminal.run("network", "delete", "shop");
  expect(refused.err).toContain("add --yes");
  await ok("network", "delete", "shop", "--yes");
  expect(spec("/networks/campus/shop")).toBeUndefined();
});

describe("security groups", () => {
  test("rules come and go, each once", async () => {
    seed(shop);
    const allow = ["security-group", "allow", "web", "--tcp", "443", "--from", "anywhere"];
    const { out } = await ok(...allow);
    expect(out).toContain("2. tcp 443 from 0.0.0.0/0\n  3. tcp 443 from ::/0");
    await ok(...allow);
    await ok("security-group", "allow", "web", "--udp", "53", "--to", "10.0.0.2");
    await ok("security-group", "revoke", "web", "--tcp", "80", "--from", "0.0.0.0/0");
    const { ingress, egress } = spec("/security-groups/campus/web") as Record<string, unknown[]>;
    expect(ingress).toEqual([
      { protocol: "tcp", ports: "443", cidr: "0.0.0.0/0", description: "" },
      { protocol: "tcp", ports: "443", cidr: "::/0", description: "" },
    ]);
    expect(egress).toContainEqual({ protocol: "udp", ports: "53", cidr: "10.0.0.2/32", description: "" });
  });

  test.each([
    [["allow", "web", "--tcp", "70000", "--from", "anywhere"], 2, "must be a port from 1 to 65535"],
    [["allow", "web", "--from", "anywhere"], 2, "say which traffic"],
    [["allow", "web", "--tcp", "80"], 2, "say who"],
    [
      ["allow", "web", "--tcp", "80", "--from", "10.0.0.1/8"],
      2,
      "must start at its first address: 10.0.0.0/8",
    ],
    [["allow", "web", "--tcp", "80", "--from", "everybody"], 2, "group:NAME or anywhere"],
    [
      ["revoke", "web", "--tcp", "22", "--from", "anywhere"],
      3,
      'no rule "tcp 22 from 0.0.0.0/0"; it has tcp 80',
    ],
    [["allow", "wbe", "--tcp", "22", "--from", "anywhere"], 3, 'did you mean "web"?'],
  ])("%j is refused", async (argv, status, message) => {
    seed(shop);
    const before = JSON.stringify(spec("/security-groups/campus/web"));
    const outcome = await terminal.run("security-group", ...argv);
    expect(outcome.status).toBe(status);
    expect(outcome.err).toContain(message);
    expect(JSON.stringify(spec("/security-groups/campus/web"))).toBe(before);
  });
});

test("an address is moved by one command, found by name or by itself", async () => {
  seed(shop);
  await ok("address", "assign", "203.0.113.5", "spare");
  expect(spec("/addresses/campus/www")).toEqual({ instance: "spare" });
  await ok("address", "unassign", "www");
  expect(spec("/addresses/campus/www")).toEqual({});
  const { out } = await ok("address", "allocate", "--instance", "web");
  expect(out).toMatch(/address-\d{4} +bound/);
  await ok("address", "release", "www", "--yes");
  const { status, err } = await terminal.run("address", "assign", "203.0.113.99", "web");
  expect([status, err]).toEqual([3, "error: project campus has no address 203.0.113.99\n"]);
});

test("a published port is moved by publishing it again", async () => {
  seed(shop);
  await ok("publish", "8080", "web:80");
  expect(spec("/published-ports/campus/tcp-8080")).toEqual({
    protocol: "tcp",
    port: 8080,
    instance: "web",
    targetPort: 80,
  });
  await ok("publish", "8080", "spare");
  expect(spec("/published-ports/campus/tcp-8080")).toEqual({
    protocol: "tcp",
    port: 8080,
    instance: "spare",
  });
  await ok("publish", "8080", "spare", "--udp");
  await ok("unpublish", "8080", "--yes");
  const { status, err } = await terminal.run("unpublish", "8080", "--yes");
  expect(status).toBe(3);
  expect(err).toContain("tcp port 8080 is not published in project campus");
  for (const port of ["0", "65536", "http"]) {
    expect((await terminal.run("publish", port, "web")).err).toContain("a number from 1 to 65535");
  }
});

test("a port that cannot be published says why", async () => {
  seed(shop);
  terminal.client.react = (resource) => {
    const status = { ...(resource.status as object), state: "failed", message: "port 80 is taken by nginx" };
    return { ...resource, status: { ...status, observedGeneration: resource.metadata.generation } };
  };
  const { status, err } = await terminal.run("publish", "80", "web", "--timeout", "1");
  expect(status).toBe(5);
  expect(err).toContain('published port "tcp-80" is not in force: port 80 is taken by nginx');
});

test("a port that is published at the second attempt is published", async () => {
  seed(shop);
  let attempts = 0;
  terminal.client.react = (resource) => {
    const state = ++attempts > 1 ? "active" : "failed";
    const observedGeneration = resource.metadata.generation;
    return { ...resource, status: { ...(resource.status as object), state, observedGeneration } };
  };
  const publishing = terminal.run("publish", "80", "web");
  await expect.poll(() => terminal.client.calls.at(-1)).toBe("list published-ports");
  await terminal.client.patch(publishedPortKind as Kind, { project: "campus", name: "tcp-80" }, { spec: {} });
  expect(await publishing).toMatchObject({ status: 0 });
});

test("network cards are plugged in, unplugged and deleted", async () => {
  seed(shop);
  await ok(
    "interface",
    "create",
    "backup",
    "--network",
    "shop",
    "--subnet",
    "inner",
    "--security-group",
    "db",
  );
  await ok("interface", "attach", "backup", "web");
  expect(spec("/network-interfaces/campus/backup")).toMatchObject({ instance: "web" });
  const taken = await terminal.run("interface", "attach", "backup", "db");
  expect(taken.status).toBe(4);
  expect(taken.err).toContain("`strata interface detach backup` unplugs it");
  const { out } = await ok("interface", "detach", "backup");
  expect(out).toContain("available");
  await ok("interface", "delete", "backup", "--yes");
});

describe("a network is shown", () => {
  test("as a tree with who may talk to whom", async () => {
    seed(shop);
    const { out } = await ok("network", "show", "shop");
    expect(out).toMatch(/subnet inner {2}10\.0\.2\.0\/24 {2}gateway 10\.0\.2\.1/);
    expect(out).toMatch(/web +10\.0\.1\.10 +container +running +\[web\]/);
    expect(out).toContain("address 203.0.113.5 (www)  → web  bound  lets in tcp 80");
    const matrix = out
      .trimEnd()
      .split("\n")
      .slice(-4)
      .map((line) => line.trim().split(/ {2,}/));
    expect(matrix).toEqual([
      ["from \\ to", "outside", "db", "web"],
      ["outside", "-", "-", "tcp 80"],
      ["db", "all", "-", "tcp 80"],
      ["web", "all", "tcp 5432", "tcp 80"],
    ]);
  });

  test("as JSON, and as a drawing that is well-formed whatever names say", async () => {
    seed(shop);
    const json = await ok("network", "show", "shop", "--json");
    expect(JSON.parse(json.out)).toMatchObject({ name: "shop", parties: ["outside", "db", "web"] });
    terminal.client.seed(
      networkKind as Kind,
      { name: "bad", project: "campus", spec: {} },
      { cidr: '<&">\u0007' },
    );
    for (const name of ["shop", "bad"]) {
      await ok("network", "show", name, "--svg", `${name}.svg`);
      const svg = await readFile(join(terminal.cwd, `${name}.svg`), "utf8");
      expect(unclosed(svg)).toEqual([]);
      expect(svg).not.toContain("<&");
      expect(svg).not.toContain("\u0007");
    }
    const { status, err } = await terminal.run("network", "show", "shop", "--svg", "no/such/place.svg");
    expect(status).toBe(2);
    expect(err).toContain("(ENOENT)");
  });
});

/** Elements that are open at the end, or closed without having been opened. */
function unclosed(xml: string): string[] {
  const open: string[] = [];
  for (const [, end, name = "", self] of xml.matchAll(/<(\/?)([a-z]+)[^<>]*?(\/?)>/g)) {
    if (self) continue;
    if (!end) open.push(name);
    else if (open.pop() !== name) return [...open, `/${name}`];
  }
  return open;
}

test("a trace says why, with the exit status of its verdict", async () => {
  seed(shop);
  const passes = await ok("network", "trace", "web", "db:5432");
  expect(passes.out).toContain("✓ ingress");
  expect(passes.out).toContain("rule 1: tcp 5432 from group web  matches");
  const refused = await terminal.run("network", "trace", "outside", "db:5432", "--json");
  expect(refused.status).toBe(1);
  expect(JSON.parse(refused.out)).toMatchObject({ passes: false, protocol: "tcp", port: 5432 });
  expect((await terminal.run("network", "trace", "web", "nowhere")).status).toBe(2);
  expect((await terminal.run("network", "trace", "web", "nobody:80")).status).toBe(3);
});

test("instances are listed with where they are found", async () => {
  seed(shop);
  const url = async () => (await ok("list")).out.split("\n").find((line) => line.startsWith("web"));
  expect(await url()).toContain("http://203.0.113.5/");
  await ok("address", "unassign", "www");
  expect(await url()).toContain("(strata publish 80 web)");
  await ok("publish", "8080", "web:80");
  expect(await url()).toContain("http://localhost:8080/");
  const info = await ok("info", "web");
  expect(info.out).toContain("port 8080/tcp of the host  leads to port 80  active");
  expect(info.out).toMatch(/security groups +web/);
});

test("ssh sends from the network's host address where the host's routes do not lead", async () => {
  seed(shop);
  const ssh = async (...argv: string[]) => {
    await terminal.run("ssh", ...argv);
    return terminal.foreground.at(-1)?.join(" ");
  };
  expect(await ssh("web")).toContain("-b 100.64.0.2 -- 10.0.1.10");
  expect(await ssh("db", "--", "uptime", "-p")).toContain("-- 10.0.2.10 uptime -p");
  terminal.env = { ...terminal.env, STRATA_URL: "https://cloud.example:7443" };
  expect(await ssh("web")).toMatch(/accept-new .* -- 203\.0\.113\.5$/);
  await ok("publish", "2222", "db:22");
  expect(await ssh("db")).toContain("-p 2222 -- cloud.example");
});

test("an interface that others have is not theirs to see", async () => {
  seed(shop);
  terminal.client.seed(networkInterfaceKind as Kind, { name: "x", project: "other", spec: { network: "n" } });
  expect((await ok("interface", "list", "-p", "campus")).err).toContain(
    "no network-interfaces in project campus",
  );
});
