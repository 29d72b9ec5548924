import { beforeEach, describe, expect, test } from "vitest";
import { type Group, type GroupStatus, groupKind } from "../../kinds/group.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Resource } from "../../kinds/kind.ts";
import { scalingDecisionKind } from "../../kinds/scaling-decision.ts";
import { TestTerminal } from "../test-terminal.ts";

const project = "campus";
let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: project };
  terminal.client.react = (resource) => settle(resource);
});

/** Controllers that do everything at once. */
function settle(resource: Resource, change: Partial<GroupStatus> = {}): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  if (resource.kind !== groupKind.name) return resource;
  const { min, desired = min } = (resource as Group).spec;
  const status = {
    ...(resource as Group).status,
    wanted: desired,
    desired,
    ready: desired,
    members: desired,
  };
  const observedGeneration = resource.metadata.generation;
  return { ...resource, status: { ...status, state: "steady", message: "", observedGeneration, ...change } };
}

async function ok(...args: string[]) {
  const result = await terminal.run("group", ...args);
  expect(result).toMatchObject({ status: 0 });
  return result;
}

const group = () => terminal.client.resources.get(`/groups/${project}/web`) as Group | undefined;

describe("creating", () => {
  test("the options make template, bounds and update", async () => {
    const { out } = await ok(
      ...["create", "web", "debian12", "--min", "2", "--max", "6", "--desired", "3", "--warm", "1"],
      ...[
        "--priority",
        "5",
        "--surge",
        "2",
        "--settle",
        "4",
        "--update-timeout",
        "60",
        "--on-failure",
        "stop",
      ],
      ...["--memory", "256MiB", "--service", "web:80/http", "--label", "tier=front"],
    );
    expect(out).toMatch(/web +steady +3 of 3 +3 +2 to 6/);
    expect(group()?.spec).toMatchObject({
      min: 2,
      max: 6,
      desired: 3,
      warm: 1,
      priority: 5,
      update: { maxSurge: 2, settleSeconds: 4, timeoutSeconds: 60, rollback: false },
      template: { image: "debian12", memoryMib: 256, services: [{ name: "web", port: 80 }] },
    });
    expect(group()?.metadata.labels).toEqual({ tier: "front" });
  });

  test.each([
    [[], 1],
    [["--min", "3"], 3],
    [["--desired", "4"], 4],
    [["--min", "0"], 1],
  ])("without --max, %j has room for what is asked", async (args, max) => {
    await ok("create", "web", "debian12", ...args);
    expect(group()?.spec.max).toBe(max);
  });

  test("what follows -- runs in its containers", async () => {
    await ok("create", "web", "app", "--driver", "docker", "--", "python3", "-m", "http.server", "80");
    expect(JSON.stringify(group()?.spec.template)).toContain('["python3","-m","http.server","80"]');
  });

  test("an update that failed ends the wait with its reason", async () => {
    terminal.client.react = (resource) =>
      settle(resource, { state: "stopped", message: "no member got healthy" });
    const { status, err } = await terminal.run("group", "create", "web", "debian12");
    expect(status).not.toBe(0);
    expect(err).toContain('the group "web" keeps its version: no member got healthy');
  });

  test("without waiting it is shown as it is", async () => {
    terminal.client.react = (resource) => resource;
    expect((await ok("create", "web", "debian12", "--no-wait")).out).toMatch(/web +scaling +0 of 0/);
  });
});

describe("one that is there", () => {
  beforeEach(async () => {
    await ok("create", "web", "debian12", "--min", "1", "--max", "4");
  });

  test("is scaled by hand, between bounds, and back to what policies want", async () => {
    await ok("scale", "web", "3");
    expect(group()?.spec).toMatchObject({ min: 1, max: 4, desired: 3 });
    await ok("scale", "web", "--min", "2", "--max", "10");
    expect(group()?.spec).toMatchObject({ min: 2, max: 10, desired: 3 });
    await ok("scale", "web", "auto");
    expect(group()?.spec.desired).toBeUndefined();
  });

  test.each([
    [["scale", "web"], "say how many"],
    [["scale", "web", "many"], 'a whole number or auto, not "many"'],
    [["scale", "web", "2.5"], 'not "2.5"'],
    [["update", "web"], "say what shall change"],
  ])("%j is refused and changes nothing", async (args, message) => {
    const before = group();
    const { status, err } = await terminal.run("group", ...args);
    expect(status).toBe(2);
    expect(err).toContain(message);
    expect(group()).toEqual(before);
  });

  test("is updated in parts", async () => {
    await ok("update", "web", "--image", "debian13", "--memory", "1GiB");
    expect(group()?.spec.template).toMatchObject({ image: "debian13", memoryMib: 1024 });
    const { template } = group()?.spec ?? {};
    await ok("update", "web", "--on-failure", "roll-back", "--surge", "3");
    expect(group()?.spec).toMatchObject({ template, update: { rollback: true, maxSurge: 3 } });
    expect((await ok("rollout", "web")).out).toContain("steady");
  });

  test("is shown with its members, and not with others", async () => {
    const uid = group()?.metadata.uid ?? "";
    const spec = { type: "container", image: "debian12" };
    const { metadata } = terminal.client.seed(instanceKind, { name: "web-aaaaa", project, spec });
    const owned = terminal.client.resources.get(`/instances/${project}/web-aaaaa`) as Resource;
    const owner = { kind: groupKind.name, name: "web", uid: uid as typeof metadata.uid };
    terminal.client.resources.set(`/instances/${project}/web-aaaaa`, {
      ...owned,
      metadata: { ...owned.metadata, owner },
    });
    terminal.client.seed(instanceKind, { name: "web-other", project, spec });
    const { out } = await ok("show", "web");
    expect(out).toContain("web-aaaaa");
    expect(out).not.toContain("web-other");
  });

  test("tells who decided on its size, of its own decisions alone", async () => {
    expect((await ok("decisions", "web")).err).toContain("the size of web was never changed");
    const decision = (name: string, uid: string, to: number) =>
      terminal.client.seed(scalingDecisionKind, {
        name,
        project,
        spec: {
          group: { name: "web", uid },
          from: 1,
          to,
          winner: "policy load",
          wants: [{ policy: "load", members: to, reason: `${to * 50} requests/s` }],
          limits: [],
        },
      });
    decision("web-1", group()?.metadata.uid ?? "", 3);
    decision("web-2", "00000000000000ff", 4);
    const { out } = await ok("decisions", "web");
    expect(out).toMatch(/1 +3 +policy load +load: 3 \(150 requests\/s\)/);
    expect(out).not.toContain("200 requests/s");
  });

  test("is deleted with its members, when that is confirmed", async () => {
    const refused = await terminal.run("group", "delete", "web");
    expect(refused.status).not.toBe(0);
    expect(group()).toBeDefined();
    expect((await ok("delete", "web", "--yes")).out).toContain("deleted web");
    expect(group()).toBeUndefined();
  });
});
