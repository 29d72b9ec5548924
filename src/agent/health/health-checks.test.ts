import { expect, test } from "vitest";
import { settle, VirtualClock } from "../../core/virtual-clock.ts";
import { healthCheckSchema } from "../../kinds/instance.ts";
import { HealthChecks } from "./health-checks.ts";
import type { Outcome } from "./network-checks.ts";

const refused: Outcome = { healthy: false, saw: "port 80 refused the connection" };

function bench(check: object = {}) {
  const clock = new VirtualClock(0);
  const asked: string[] = [];
  const hints: string[] = [];
  const failures: string[] = [];
  const scene = {
    outcome: { healthy: true } as Outcome,
    wanted: true,
    hostAddress: "100.64.0.2" as string | undefined,
  };
  const answer = async (what: string, signal: AbortSignal) => {
    signal.throwIfAborted();
    asked.push(what);
    return scene.outcome;
  };
  const checks = new HealthChecks({
    clock,
    network: {
      tcp: ({ address, port, from }, timeoutMs, signal) =>
        answer(`tcp ${address}:${port} from ${from} within ${timeoutMs}`, signal),
      http: ({ address, port, path }, timeoutMs, signal) =>
        answer(`http ${address}:${port}${path} within ${timeoutMs}`, signal),
    },
    command: ({ driver, command }, timeoutMs, signal) =>
      answer(`${driver}: ${command.join(" ")} within ${timeoutMs}`, signal),
    hostAddress: () => scene.hostAddress,
    wanted: () => scene.wanted,
    hint: (key) => hints.push(key),
    onFailure: (uid) => failures.push(uid),
  });
  const begin = async (target = "run-1") => {
    checks.begin({
      type: "check",
      key: "web",
      uid: "u",
      target,
      network: "n",
      address: "10.0.0.2",
      driver: "fake",
      handle: {},
      check: healthCheckSchema.parse({ type: "tcp", port: 80, ...check }),
    });
    await settle();
  };
  return { clock, asked, hints, failures, scene, checks, begin };
}

test.each([
  [{}, "tcp 10.0.0.2:80 from 100.64.0.2 within 2000"],
  [{ type: "http", path: "/up", timeoutMs: 500 }, "http 10.0.0.2:80/up within 500"],
  [{ type: "command", port: undefined, command: ["test", "-e", "/ok"] }, "fake: test -e /ok within 2000"],
])("%j asks for what it says", async (check, what) => {
  const { asked, begin, checks } = bench(check);
  await begin();
  expect(asked).toEqual([what]);
  expect(checks.state("u")).toMatchObject({ target: "run-1", result: "healthy" });
});

test("healthy, then failing, then healthy again: each is told once, at the interval asked for", async () => {
  const { clock, asked, hints, failures, scene, checks, begin } = bench({ intervalMs: 1_000, fall: 3 });
  await begin();
  await clock.advance(10_000);
  expect([asked.length, hints.length, failures.length]).toEqual([11, 1, 0]);
  scene.outcome = refused;
  await clock.advance(1_000);
  // Services are looked at again with the first failure; the check still counts as healthy.
  expect([checks.state("u")?.result, hints.length, failures.length]).toEqual(["healthy", 1, 1]);
  await clock.advance(2_000);
  expect(checks.state("u")).toMatchObject({ result: "unhealthy", saw: refused.saw, failingSince: 11_000 });
  expect([hints.length, failures.length]).toEqual([2, 2]);
  await clock.advance(60_000);
  expect(hints.length).toBe(2);
  scene.outcome = { healthy: true };
  await clock.advance(1_000);
  expect([checks.state("u")?.result, hints.length]).toEqual(["healthy", 3]);
});

test("a slow start is asked often and not told as a failure at once", async () => {
  const { clock, asked, hints, scene, checks, begin } = bench({ intervalMs: 60_000 });
  scene.outcome = refused;
  await begin();
  await clock.advance(1_500);
  expect(asked.length).toBeGreaterThan(5);
  expect(checks.state("u")?.result).toBe("unknown");
  scene.outcome = { healthy: true };
  await clock.advance(1_000);
  expect(checks.state("u")?.result).toBe("healthy");
  expect(hints.length).toBeGreaterThan(0);
});

test("while the network is not there, nobody is asked", async () => {
  const { clock, asked, scene, checks, begin } = bench();
  scene.hostAddress = undefined;
  await begin();
  await clock.advance(10_000);
  expect(asked).toEqual([]);
  expect(checks.state("u")).toMatchObject({ result: "unhealthy", saw: "its network is not there (yet)" });
});

test("it ends when it is not wanted any more, and says so", async () => {
  const { clock, asked, hints, scene, checks, begin } = bench({ intervalMs: 1_000 });
  await begin();
  await clock.advance(3_000);
  scene.wanted = false;
  await clock.advance(1_000);
  const [before, told] = [asked.length, hints.length];
  expect(checks.state("u")).toBeUndefined();
  await clock.advance(10_000);
  expect([asked.length, hints.length]).toEqual([before, told]);
  expect(told).toBe(2);
});

test("another run replaces it; stopping and forgetting end it", async () => {
  const { clock, asked, checks, begin } = bench({ intervalMs: 1_000 });
  await begin();
  await begin("run-2");
  await clock.advance(2_000);
  expect(checks.state("u")?.target).toBe("run-2");
  expect(asked.length).toBe(4);
  checks.stop();
  await clock.advance(5_000);
  expect([asked.length, checks.state("u")]).toEqual([4, undefined]);
});
