import { beforeEach, expect, test } from "vitest";
import { StrataError } from "../core/errors.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Kind } from "../kinds/kind.ts";
import { securityGroupKind } from "../kinds/security-group.ts";
import { commands } from "./commands/commands.ts";
import { TestTerminal } from "./test-terminal.ts";

let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
});

const image = (name: string, project = "default") =>
  terminal.client.seed(imageKind as Kind, {
    name,
    project,
    spec: { source: { type: "debian", suite: "bookworm" } },
  });
const instance = (name: string, status = {}) =>
  terminal.client.seed(
    instanceKind as Kind,
    { name, project: "default", spec: { type: "container", image: "debian12" } },
    { state: "running", observedGeneration: 1, ...status },
  );

test("without a command it shows help and succeeds", async () => {
  const { status, out } = await terminal.run();
  expect(status).toBe(0);
  expect(out).toContain("strata up examples/campus.yaml");
});

test.each(commands.filter((spec) => !spec.hidden))(
  "$path has help with an example that begins like it",
  async (spec) => {
    const { status, out } = await terminal.run(...spec.path.split(" "), "--help");
    expect(status).toBe(0);
    expect(spec.examples.length).toBeGreaterThan(0);
    for (const example of spec.examples) {
      expect(example).toContain(`strata ${spec.path}`);
      expect(out).toContain(example);
    }
    expect(out).toContain("--json");
  },
);

test("a misspelt command gets a suggestion and the usage status", async () => {
  const { status, err } = await terminal.run("lsit");
  expect(status).toBe(2);
  expect(err).toMatch(/unknown command 'lsit'\n\(Did you mean list\?\)/);
});

test("a table has aligned columns, JSON the resources themselves", async () => {
  instance("web", { nic: { network: "default", macAddress: "02:00:00:00:00:01", ipAddress: "10.0.0.2" } });
  const table = await terminal.run("list");
  const [head = "", row = ""] = table.out.split("\n");
  expect(row.indexOf("10.0.0.2")).toBe(head.indexOf("ADDRESS"));
  const { out } = await terminal.run("list", "--json");
  expect(JSON.parse(out)).toEqual([terminal.client.resources.get("/instances/default/web")]);
});

test("common options work before and after the command", async () => {
  image("debian12", "campus");
  for (const argv of [
    ["-p", "campus", "list", "images", "--json"],
    ["list", "images", "--project", "campus", "--json"],
  ]) {
    const { out } = await terminal.run(...argv);
    expect(JSON.parse(out)).toHaveLength(1);
  }
});

test("an instance is found by the beginning of its id, and a misspelt name gets a suggestion", async () => {
  const { metadata } = instance("enrollment");
  const byId = await terminal.run("info", metadata.uid.slice(0, 6), "--json");
  expect(JSON.parse(byId.out)).toMatchObject({ metadata: { name: "enrollment" } });
  const { status, err } = await terminal.run("info", "enrolment");
  expect(status).toBe(3);
  expect(err).toBe(
    'error: there is no instance "enrolment" in project default (did you mean "enrollment"?)\n',
  );
});

test("launch waits until the instance is ready", async () => {
  image("debian12");
  terminal.client.react = (resource) => {
    const ready = {
      type: "Ready",
      status: "true",
      reason: "Answers",
      message: "",
      since: "2030-01-01T00:00:00.000Z",
    };
    const status = {
      state: "running",
      observedGeneration: resource.metadata.generation,
      conditions: [ready],
    };
    return { ...resource, status: { ...(resource.status as object), ...status } };
  };
  const argv = ["launch", "debian12", "web", "--memory", "1GiB", "--service", "web:80/http"];
  const { status, out } = await terminal.run(...argv, "--json");
  expect(status).toBe(0);
  expect(JSON.parse(out)).toMatchObject([
    {
      metadata: { name: "web" },
      spec: { memoryMib: 1024, services: [{ name: "web", port: 80, protocol: "http" }] },
    },
  ]);
});

test.each([
  [["api", "--", "serve", "--port", "80"], "api", ["serve", "--port", "80"]],
  [["--", "serve", "x"], undefined, ["serve", "x"]],
])("launch %j: what follows -- runs in an application container", async (argv, name, command) => {
  image("web");
  await terminal.run("launch", "web", "--env", "A=1=2", "--no-wait", ...argv);
  const [made] = [...terminal.client.resources.values()].filter(({ kind }) => kind === "Instance");
  expect(made?.metadata.name).toEqual(name ?? expect.stringMatching(/^web-\d{4}$/));
  expect(made?.spec).toMatchObject({ driver: "docker", application: { command, environment: { A: "1=2" } } });
});

test("launch takes its place in a network", async () => {
  image("web");
  const place = ["--network", "shop", "--subnet", "inner", "--ip", "10.0.2.7", "--ipv6", "fd00::7"];
  await terminal.run("launch", "web", "db", ...place, "--security-group", "db", "--no-wait");
  expect(terminal.client.resources.get("/instances/default/db")?.spec).toMatchObject({
    network: "shop",
    subnet: "inner",
    ipAddress: "10.0.2.7",
    ipv6Address: "fd00::7",
    securityGroups: ["db"],
  });
  const stray = await terminal.run("launch", "web", "db", "serve");
  expect(stray.err).toContain('"serve" is one argument too many: put -- before a command');
  expect((await terminal.run("launch", "web", "db", "--env", "A=1")).err).toContain("add -- COMMAND");
});

test("resize says when the new size comes into force", async () => {
  const since = "2030-01-01T00:00:00.000Z";
  const waiting = {
    type: "RestartNeeded",
    status: "true",
    reason: "Memory",
    message: "1 GiB with the next start",
  };
  instance("web", { conditions: [{ ...waiting, since }] });
  terminal.client.react = (resource) => {
    const observedGeneration = resource.metadata.generation;
    return { ...resource, status: { ...(resource.status as object), observedGeneration } };
  };
  const { status, err } = await terminal.run("resize", "web", "--cpus", "2", "--memory", "1GiB");
  expect([status, err.trim().split("\n").at(-1)]).toEqual([0, "web: 1 GiB with the next start"]);
  expect(terminal.client.resources.get("/instances/default/web")?.spec).toMatchObject({
    cpus: 2,
    memoryMib: 1024,
  });
  expect((await terminal.run("resize", "web")).status).toBe(2);
});

test("completion offers names of the kind that is asked for", async () => {
  terminal.client.seed(securityGroupKind as unknown as Kind, { name: "web", project: "default", spec: {} });
  instance("lms");
  const offered = async (...words: string[]) => (await terminal.run("__complete", "--", ...words)).out;
  expect(await offered("security-group", "allow", "")).toBe("web\n");
  expect(await offered("address", "assign", "www", "")).toBe("lms\n");
  expect(await offered("security-group", "al")).toBe("allow\n");
});

test("waiting ends with --timeout, and not with the work", async () => {
  instance("web", { state: "stopped" });
  terminal.client.react = (resource) => resource;
  const { status, err } = await terminal.run("start", "web", "--timeout", "0");
  expect(status).toBe(5);
  expect(err).toContain("it goes on in the background");
});

test("destroying needs a yes", async () => {
  instance("web");
  const refused = await terminal.run("delete", "web");
  expect(refused.status).toBe(2);
  expect(refused.err).toContain("add --yes");
  expect(terminal.client.resources.has("/instances/default/web")).toBe(true);
  const { status, out } = await terminal.run("delete", "web", "--yes");
  expect([status, out]).toEqual([0, "deleted web\n"]);
  expect(terminal.client.resources.has("/instances/default/web")).toBe(false);
});

test("errors are one line with fields, never a stack trace", async () => {
  terminal.client.failures.push(
    new StrataError("Invalid", "cannot create it", {
      fields: [{ path: "spec.cpus", message: "too many", allowed: "1 to 4" }],
    }),
  );
  const invalid = await terminal.run("list");
  expect(invalid).toEqual({
    status: 2,
    out: "",
    err: "error: cannot create it\n  spec.cpus: too many (allowed: 1 to 4)\n",
  });
  terminal.client.failures.push(new TypeError("x is undefined"));
  const { status, err } = await terminal.run("list");
  expect(status).toBe(1);
  expect(err).toBe("error: unexpected: x is undefined; STRATA_DEBUG=1 shows more\n");
});

test("Ctrl-C says what goes on", async () => {
  instance("web", { state: "stopped" });
  terminal.client.react = (resource) => resource;
  const run = terminal.run("start", "web");
  await expect.poll(() => terminal.client.calls).toContain("patch instances web");
  terminal.interrupt();
  const { status, err } = await run;
  expect(status).toBe(130);
  expect(err).toContain("goes on in the background");
});
