import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { hostKind } from "../../kinds/host.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { projectKind } from "../../kinds/project.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.cwd = await mkdtemp(join(tmpdir(), "stack-"));
  terminal.client.react = becomeReady;
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

/** A daemon that does everything at once. */
function becomeReady(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  const status = resource.status as object;
  if (resource.kind === "Image")
    return { ...resource, status: { ...status, state: "ready", digest: "sha256:abc" } };
  if (resource.kind !== "Instance") return resource;
  const ready = {
    type: "Ready",
    status: "true",
    reason: "Answers",
    message: "",
    since: "2030-01-01T00:00:00.000Z",
  };
  const observed = { observedGeneration: resource.metadata.generation, conditions: [ready] };
  return { ...resource, status: { ...status, ...observed, state: "running" } };
}

const names = () => [...terminal.client.resources.keys()].sort();
const stack = (instances: string, more = "") =>
  writeFile(
    join(terminal.cwd, "s.yaml"),
    `stack: school\n${more}images: { base: { debian: bookworm } }\ninstances:\n${instances}\n`,
  );
const three = "  web: { count: 3, type: container, image: base }\n  lms: { type: vm, image: base }";
const everything = [
  "/images/school/base",
  "/instances/school/lms",
  "/instances/school/web-1",
  "/instances/school/web-2",
  "/instances/school/web-3",
  "/projects/school",
];

test("up makes it all, says so, and the second time changes nothing", async () => {
  await stack(three);
  const first = await terminal.run("up", "s.yaml");
  expect(first.status).toBe(0);
  expect(first.err).toContain("+ create instance web-3 (container, image base, 1 CPU, 512 MiB)");
  expect(first.err).toContain("instances/lms: ready");
  expect(
    first.out
      .trimEnd()
      .split("\n")
      .map((line) => line.split(/ +/)[0]),
  ).toEqual(["NAME", "web-1", "web-2", "web-3", "lms"]);
  expect(names()).toEqual(everything);
  terminal.client.calls.length = 0;
  const second = await terminal.run("up", "s.yaml");
  expect(second.err).toContain("school: nothing to change");
  expect(second.out).toBe(first.out);
  expect(terminal.client.calls.filter((call) => !/^(get|list)/.test(call))).toEqual([]);
});

test("diff tells and does nothing", async () => {
  await stack(three);
  const { out } = await terminal.run("diff", "s.yaml", "--json");
  expect(JSON.parse(out)).toContainEqual({
    action: "create",
    kind: "Instance",
    name: "web-1",
    project: "school",
  });
  expect(names()).toEqual([]);
});

test("a smaller count deletes the highest numbers, after a yes", async () => {
  await stack(three);
  await terminal.run("up", "s.yaml");
  await stack("  web: { count: 1, type: container, image: base }");
  const refused = await terminal.run("up", "s.yaml");
  expect(refused.status).toBe(2);
  expect(refused.err).toContain(
    "instance lms, instance web-2, instance web-3 and all data on it will be destroyed",
  );
  expect(names()).toEqual(everything);
  expect((await terminal.run("up", "s.yaml", "--yes")).status).toBe(0);
  expect(names()).toEqual(["/images/school/base", "/instances/school/web-1", "/projects/school"]);
});

test("what cannot change in place is named, and replaced only when asked for", async () => {
  await stack("  web: { type: container, image: base, disk: 4GiB }");
  await terminal.run("up", "s.yaml");
  const uid = terminal.client.resources.get("/instances/school/web")?.metadata.uid;
  await stack("  web: { type: container, image: base, disk: 8GiB }");
  const refused = await terminal.run("up", "s.yaml", "--yes");
  expect(refused.status).toBe(4);
  expect(refused.err).toContain("s.yaml:4:3: instances.web: spec.diskMib: cannot change in place");
  expect(terminal.client.resources.get("/instances/school/web")?.metadata.uid).toBe(uid);
  expect((await terminal.run("up", "s.yaml", "--yes", "--replace")).status).toBe(0);
  const replaced = terminal.client.resources.get("/instances/school/web");
  expect(replaced?.metadata.uid).not.toBe(uid);
  expect(replaced?.spec).toMatchObject({ diskMib: 8192 });
});

test("a restart counter and a changed restart policy are no reason to replace", async () => {
  await stack("  web: { type: container, image: base }");
  await terminal.run("up", "s.yaml");
  await terminal.run("restart", "web", "-p", "school");
  await stack("  web: { type: container, image: base, restartPolicy: never }");
  const { status, err } = await terminal.run("up", "s.yaml");
  expect(status).toBe(0);
  expect(err).toContain("~ change instance web (restartPolicy)");
  expect(terminal.client.resources.get("/instances/school/web")?.spec).toMatchObject({ restarts: 1 });
});

test("more than any host has is refused before anything is made", async () => {
  const allocatable = { cpus: 2, memoryMib: 4096, diskMib: 100_000 };
  const driver = {
    available: true,
    message: "",
    version: "",
    types: ["container"],
    abilities: [],
    facts: {},
  };
  terminal.client.seed(
    hostKind as Kind,
    { name: "here", spec: {} },
    { state: "ready", allocatable, drivers: { fake: driver } },
  );
  await stack("  web: { type: container, image: base, memory: 64GiB }\n  lms: { type: vm, image: base }");
  const { status, err } = await terminal.run("up", "s.yaml");
  expect(status).toBe(2);
  expect(err).toContain(
    "s.yaml:4:3: instances.web: 64 GiB of memory are more than any host has (allowed: up to 4 GiB)",
  );
  expect(err).toContain("s.yaml:5:3: instances.lms: no host can run a vm (allowed: container)");
  expect(names()).toEqual(["/hosts/here"]);
});

test("an image that nobody has is refused with the names that exist", async () => {
  await stack("  web: { type: container, image: bas }");
  const { status, err } = await terminal.run("up", "s.yaml");
  expect(status).toBe(2);
  expect(err).toContain(
    'there is no image "bas" in the stack or its project; did you mean "base"? (allowed: base)',
  );
  expect(names()).toEqual([]);
});

test("what was made by hand is not taken over", async () => {
  const spec = { type: "container", image: "base" };
  await stack("  web: { type: container, image: base }", "project: default\n");
  terminal.client.seed(projectKind as Kind, { name: "default", spec: {} });
  terminal.client.seed(instanceKind as Kind, { name: "web", project: "default", spec });
  const { status, err } = await terminal.run("up", "s.yaml", "--yes");
  expect(status).toBe(4);
  expect(err).toContain("s.yaml:5:3: instances.web: exists already and was made by hand");
  expect(names()).toEqual(["/instances/default/web", "/projects/default"]);
});

test("a daemon that restarts in the middle is waited for", async () => {
  await stack(three);
  terminal.client.failures.push(
    new StrataError("Unavailable", "no daemon answers"),
    new StrataError("Conflict", "changed"),
  );
  expect((await terminal.run("up", "s.yaml")).status).toBe(0);
  expect(names()).toEqual(everything);
});

test("a failed image ends the waiting with its reason", async () => {
  await stack(three);
  terminal.client.react = (resource) => {
    if (resource.kind !== "Image") return resource;
    const status = {
      ...(resource.status as object),
      state: "failed",
      message: "no network",
      observedGeneration: 1,
    };
    return { ...resource, status };
  };
  const { status, err } = await terminal.run("up", "s.yaml");
  expect(status).toBe(5);
  expect(err).toContain('error: the image "base" cannot be made: no network');
});

test("twenty at once come to the same", async () => {
  await stack(three);
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => terminal.run("up", "s.yaml")));
  expect(outcomes.map((outcome) => outcome.status)).toEqual(Array(20).fill(0));
  expect(names()).toEqual(everything);
});

test("down deletes the stack and nothing else", async () => {
  await stack(three);
  await terminal.run("up", "s.yaml");
  terminal.client.seed(instanceKind as Kind, {
    name: "mine",
    project: "default",
    spec: { type: "vm", image: "base" },
  });
  const { status, out } = await terminal.run("down", "school", "--yes");
  expect([status, out]).toEqual([0, "school: all gone\n"]);
  expect(names()).toEqual(["/instances/default/mine"]);
  expect((await terminal.run("down", "s.yaml", "--yes")).out).toBe("school: nothing is there\n");
});

test("a project in which someone else has something stays", async () => {
  await stack(three);
  await terminal.run("up", "s.yaml");
  terminal.client.seed(instanceKind as Kind, {
    name: "mine",
    project: "school",
    spec: { type: "vm", image: "base" },
  });
  const { err } = await terminal.run("down", "s.yaml", "--yes");
  expect(err).toContain("the project school stays: instance mine in it is not of this stack");
  expect(names()).toEqual(["/instances/school/mine", "/projects/school"]);
});

test("down of a misspelt stack suggests the right one", async () => {
  await stack(three);
  await terminal.run("up", "s.yaml");
  const { status, err } = await terminal.run("down", "schol", "--yes");
  expect(status).toBe(3);
  expect(err).toContain('there is no stack "schol" (did you mean "school"?)');
});
