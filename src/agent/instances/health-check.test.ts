import { afterEach, describe, expect, test } from "vitest";
import { agentBench } from "../../../sim/agent-bench.ts";
import { toTimestamp } from "../../core/clock.ts";
import { healthCheckSchema, type Instance } from "../../kinds/instance.ts";
import { emptyTally, type Tally } from "../health/tally.ts";
import { checkTarget } from "./conditions.ts";
import { planInstance } from "./plan.ts";
import { guestOf, instanceOf, now, runningStatus, worldOf } from "./testing.ts";
import { ran } from "./testing-rows.ts";
import type { InstanceWorld } from "./world.ts";

const healthCheck = healthCheckSchema.parse({ type: "http", port: 80 });
const service = { name: "web", port: 80, protocol: "http", path: "/" } as const;
const saw = "GET / on port 80 was answered with status 503";
const failing: Tally = { result: "unhealthy", successes: 0, failures: 3, failingSince: now - 9_000, saw };

function readyOf(world: InstanceWorld) {
  return planInstance(world, now).status?.status.conditions.find(({ type }) => type === "Ready");
}

/** Ran and was Ready before. */
function running(
  tally: Tally | undefined,
  change: { spec?: Partial<Instance["spec"]>; status?: object } = {},
) {
  const world = ran(guestOf("running"), { healthCheck, ...change.spec }, change.status);
  const target = checkTarget(world) ?? "";
  return { ...world, ...(tally ? { check: { target, ...tally } } : {}) };
}

const notReady = {
  conditions: [
    { type: "Ready", status: "false", reason: "NotRunning", message: "", since: toTimestamp(now) },
  ],
};

describe("Ready", () => {
  test.each<[string, InstanceWorld, string, string, RegExp]>([
    ["healthy", running({ ...emptyTally, result: "healthy" }), "true", "Healthy", /^$/],
    [
      "unhealthy, with what was seen and since when",
      running(failing),
      "false",
      "Unhealthy",
      /^its health check fails since 2023-11-14T22:13:11.000Z: GET \/ on port 80 was answered with status 503$/,
    ],
    ["impossible", running({ ...failing, unsupported: true }), "false", "Unsupported", /503/],
    [
      "starting: not before the first success",
      running({ ...emptyTally, saw, failures: 1 }, { status: notReady }),
      "false",
      "HealthUnknown",
      /waiting for its health check to succeed; now GET/,
    ],
    ["not asked yet", running(undefined, { status: notReady }), "false", "HealthUnknown", /succeed$/],
    ["a daemon that was restarted believes the last one", running(undefined), "true", "Running", /^$/],
    ["until it knows better", running({ ...emptyTally, saw, failures: 1 }), "true", "Running", /^$/],
    [
      "services come first",
      {
        ...running({ ...emptyTally, result: "healthy" }, { spec: { services: [service] } }),
        probe: { target: "run-1:80", result: "waiting", waitingFor: ["web (port 80)"] },
      },
      "false",
      "ServicesNotReady",
      /web \(port 80\)/,
    ],
    [
      "services and check together",
      {
        ...running({ ...emptyTally, result: "healthy" }, { spec: { services: [service] } }),
        probe: { target: "run-1:80", result: "ready", waitingFor: [] },
      },
      "true",
      "Healthy",
      /^$/,
    ],
  ])("%s", (_name, world, status, reason, message) => {
    const ready = readyOf(world);
    expect(ready).toMatchObject({ status, reason });
    expect(ready?.message).toMatch(message);
  });

  test("since is when it changed, not when it was looked at", () => {
    const before = toTimestamp(now - 9_000);
    const conditions = [
      { type: "Ready", status: "false", reason: "Unhealthy", message: "x", since: before },
    ] as const;
    expect(readyOf(running(failing, { status: { conditions } }))?.since).toBe(before);
  });
});

describe("what is done", () => {
  const actions = (world: InstanceWorld) => planInstance(world, now).actions.map(({ type }) => type);

  test("a check begins with each run and each change of it, and is left alone otherwise", () => {
    expect(actions(running(undefined))).toEqual(["check"]);
    expect(actions(running(failing))).toEqual([]);
    const old = running(failing);
    expect(actions({ ...old, check: { ...failing, target: "run-0" } })).toEqual(["check"]);
    const other = running(failing, { spec: { healthCheck: { ...healthCheck, path: "/up" } } });
    expect(actions({ ...other, check: { ...failing, target: checkTarget(old) ?? "" } })).toEqual(["check"]);
  });

  test("what it is told", () => {
    const [action] = planInstance(running(undefined), now).actions;
    expect(action).toMatchObject({
      type: "check",
      key: "/instances/default/web",
      network: "3".repeat(16),
      address: "10.0.0.2",
      driver: "fake",
      check: healthCheck,
    });
  });

  test("nothing for who asks for none, or does not run; a failure ends no guest", () => {
    const none = worldOf({ instance: instanceOf({ status: runningStatus() }), guest: guestOf("running") });
    expect(actions(none)).toEqual([]);
    expect(actions(ran(guestOf("stopped"), { healthCheck, power: "stopped" }))).toEqual([]);
    expect(actions(running(failing))).not.toContain("stop");
  });
});

describe("on a host", () => {
  let bench: Awaited<ReturnType<typeof agentBench>>;
  afterEach(() => bench.stop());
  const ready = ({ status }: Instance) => status.conditions.find(({ type }) => type === "Ready");

  test("Ready follows the check, and services are looked at again when it fails", async () => {
    let connections = 0;
    bench = await agentBench({
      connect: async () => {
        connections++;
        return true;
      },
    });
    bench.host.health = () => ({ healthy: false, saw });
    await bench.createImage();
    await bench.createInstance("web", {
      services: [service],
      healthCheck: { type: "http", port: 80, intervalMs: 1_000, fall: 2 },
    });
    await bench.until("web", (web) => ready(web)?.reason === "HealthUnknown");
    await bench.until("web", (web) => ready(web)?.reason === "Unhealthy");
    bench.host.health = () => ({ healthy: true });
    await bench.until("web", (web) => ready(web)?.reason === "Healthy");
    const before = connections;
    await bench.clock.advance(10_000);
    expect(connections).toBe(before);
    bench.host.health = () => ({ healthy: false, saw });
    const web = await bench.until("web", (web) => ready(web)?.reason === "Unhealthy");
    expect(ready(web)?.message).toContain("503");
    expect(web.status.state).toBe("running");
    expect(connections).toBeGreaterThan(before);
  });

  test("a command inside, a restart of the guest, and a check that is taken away", async () => {
    bench = await agentBench();
    await bench.createImage();
    await bench.createInstance("web", {
      healthCheck: { type: "command", command: ["false"], intervalMs: 1_000 },
    });
    const sick = await bench.until("web", (web) => ready(web)?.reason === "Unhealthy");
    expect(ready(sick)?.message).toMatch(/false exited with 1$/);
    await bench.drive(bench.patch("web", { healthCheck: { type: "command", command: ["true"] } }));
    const well = await bench.until("web", (web) => ready(web)?.reason === "Healthy");
    bench.host.world.kill(well.metadata.uid);
    await bench.until("web", (web) => ready(web)?.reason === "NotRunning");
    await bench.until("web", (web) => ready(web)?.reason === "Healthy");
    await bench.drive(bench.patch("web", { healthCheck: null }));
    await bench.until("web", (web) => ready(web)?.reason === "Running");
  });
});
