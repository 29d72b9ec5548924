import { beforeEach, describe, expect, test } from "vitest";
import type { MetricSeriesQuery } from "../../client/client.ts";
import { toTimestamp } from "../../core/clock.ts";
import { groupKind } from "../../kinds/group.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import type { CurrentMetrics } from "../../kinds/metric-answers.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
const spec = { type: "container", image: "debian" };
const at = toTimestamp(1_700_000_000_000);

function measured(name: string, values: Record<string, number>, project = "default"): CurrentMetrics {
  return { project, name, uid: `${name.padEnd(16, "0")}`, at, values };
}

beforeEach(() => {
  terminal = new TestTerminal();
  terminal.client.current.set("instances", [
    measured("calm", { cpu: 3, memory: 512, "memory-percent": 50 }),
    measured("busy", { cpu: 95.04, memory: 256, "memory-percent": 25, sent: 4096 }),
    measured("other", { cpu: 10 }, "second"),
  ]);
});

const firstColumn = (out: string) =>
  out
    .trimEnd()
    .split("\n")
    .map((line) => line.split(" ")[0]);

describe("top", () => {
  test("without a terminal: one table, the busiest first", async () => {
    const { status, out } = await terminal.run("top");
    expect(status).toBe(0);
    expect(firstColumn(out)).toEqual(["NAME", "busy", "other", "calm"]);
    expect(out).toMatch(/busy +default +95 % +256 MiB +25 % +- +- +- +4 KiB\/s/);
  });

  test("one project, another order, and JSON", async () => {
    const sorted = await terminal.run("top", "--sort", "memory", "-p", "default");
    expect(firstColumn(sorted.out)).toEqual(["NAME", "calm", "busy"]);
    expect(sorted.out).not.toContain("PROJECT");
    expect(firstColumn((await terminal.run("top", "--sort", "name")).out)).toEqual([
      "NAME",
      "busy",
      "calm",
      "other",
    ]);
    const { out } = await terminal.run("top", "--json", "-p", "second");
    expect(JSON.parse(out)).toEqual([measured("other", { cpu: 10 }, "second")]);
  });

  test("groups, hosts and balancers", async () => {
    terminal.client.current.set("groups", [
      measured("lms", { members: 3, desired: 4, "custom/students": 400 }),
    ]);
    terminal.client.current.set("load-balancers", [measured("web", { requests: 12.34, "latency-95": 8 })]);
    const groups = await terminal.run("top", "groups");
    expect(groups.out).toMatch(/lms +3 +4 +students 400/);
    expect((await terminal.run("top", "balancers")).out).toMatch(/web +12.3\/s +- +- +8 ms/);
    const hosts = await terminal.run("top", "hosts", "--once");
    expect(hosts).toMatchObject({ status: 0, err: expect.stringMatching(/nothing is measured right now/) });
  });

  test("what nobody measures", async () => {
    expect(await terminal.run("top", "volumes")).toMatchObject({ status: 2 });
    const { status, err } = await terminal.run("top", "--sort", "cpus");
    expect(status).toBe(2);
    expect(err).toMatch(
      /--sort: instances have no metric "cpus" \(did you mean "cpu"\?\); they have cpu, memory/,
    );
  });

  test("on a terminal it goes on until Ctrl-C, and gives the screen back", async () => {
    terminal.isTTY = true;
    const running = terminal.run("top");
    await expect.poll(() => terminal.client.calls.length).toBe(1);
    terminal.interrupt();
    const { out } = await running;
    expect(out).toContain("instances: 3 measured");
    expect(out).toContain("busy");
    expect(out.startsWith("\u001b[?1049h")).toBe(true);
    expect(out.endsWith("\u001b[?1049l")).toBe(true);
  });
});

describe("metrics", () => {
  const asked: MetricSeriesQuery[] = [];
  beforeEach(() => {
    asked.length = 0;
    terminal.client.seed(instanceKind as Kind, { name: "web", project: "default", spec });
    terminal.client.seed(groupKind as Kind, { name: "lms", project: "default", spec: { template: spec } });
    terminal.client.series = (query) => {
      asked.push(query);
      const from = Date.parse(query.from ?? "");
      const means = query.metric === "sent" ? [] : [10, 40, 20];
      return {
        kind: query.kind,
        ...query.ref,
        uid: "",
        metric: query.metric,
        unit: "percent",
        from: query.from ?? "",
        until: query.until ?? "",
        stepSeconds: query.stepSeconds ?? 1,
        points: means.map((mean, index) => ({
          at: toTimestamp(from + index * (query.stepSeconds ?? 1) * 1_000),
          mean,
          min: mean - 5,
          max: mean + 5,
        })),
      };
    };
  });

  test("all of an instance: now, mean, most and a line of the last hour", async () => {
    const { status, out } = await terminal.run("metrics", "web");
    expect(status).toBe(0);
    expect(out).toMatch(/^cpu +20 % +23.3 % +45 % +▃█▅$/m);
    expect(firstColumn(out)).not.toContain("sent");
    expect(asked[0]).toMatchObject({
      kind: "instances",
      ref: { project: "default", name: "web" },
      stepSeconds: 60,
    });
  });

  test("one in detail", async () => {
    const { out } = await terminal.run("metrics", "web", "--metric", "cpu", "--since", "7d");
    expect(out).toContain("cpu of instance web: use of the CPUs promised to it; a step is 10080 s");
    expect(out).toContain("least 5 %, mean 23.3 %, most 45 %, now 20 %");
    expect(out).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +40 % +35 % +45 %$/m);
    const json = await terminal.run("metrics", "web", "--metric", "cpu", "--json");
    expect(JSON.parse(json.out)).toMatchObject({
      metric: "cpu",
      points: [{ mean: 10 }, { mean: 40 }, { mean: 20 }],
    });
    const empty = await terminal.run("metrics", "web", "--metric", "sent");
    expect(empty.out).toContain("no sent of instance web was measured in that time");
  });

  test("a group's own, and what does not exist", async () => {
    const { out } = await terminal.run("metrics", "lms", "--of", "groups", "--metric", "custom/students");
    expect(out).toContain("custom/students of group lms");
    expect((await terminal.run("metrics", "wbe")).err).toMatch(/no instance "wbe".*did you mean "web"/);
    expect((await terminal.run("metrics", "web", "--metric", "latency-95")).status).toBe(2);
    expect((await terminal.run("metrics", "web", "--since", "yesterday")).err).toMatch(
      /--since must be a number/,
    );
  });
});
