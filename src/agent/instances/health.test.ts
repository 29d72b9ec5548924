import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { Instance } from "../../kinds/instance.ts";
import { planInstance } from "./plan.ts";
import { guestOf, instanceOf, now, runningStatus, worldOf } from "./testing.ts";
import { check, ran, requested } from "./testing-rows.ts";

type Health = "starting" | "healthy" | "unhealthy";

function running(health: Health, spec: Partial<Instance["spec"]> = {}) {
  const guest = guestOf("running");
  return worldOf({
    instance: instanceOf({ spec, status: runningStatus() }),
    guest: { ...guest, observed: { ...guest.observed, health } },
  });
}

function readyOf(world: ReturnType<typeof running>) {
  const conditions = planInstance(world, now).status?.status.conditions;
  return conditions?.find(({ type }) => type === "Ready");
}

test.each<[Health, string, string]>([
  ["starting", "false", "HealthUnknown"],
  ["healthy", "true", "Running"],
])("%s: Ready is %s (%s)", (health, status, reason) => {
  const world = running(health);
  check({ name: "", world, status: { state: "running" } });
  expect(readyOf(world)).toMatchObject({ status, reason });
});

test("unhealthy for good is stopped, and then its restart policy decides as after a crash", () => {
  const world = running("unhealthy");
  check({ name: "", world, actions: ["stop"], status: { state: "stopping", reason: "Unhealthy" } });
  expect(readyOf(world)).toMatchObject({ status: "false", reason: "Unhealthy" });
  const stopped = ran(guestOf("stopped", requested), {}, { state: "stopping", reason: "Unhealthy" });
  check({
    name: "",
    world: stopped,
    status: { state: "backoff", reason: "Crashed", nextStartAt: toTimestamp(now + 1_000) },
    events: ["Crashed", "BackOff"],
    recheckAfterMs: 1_000,
  });
});

test("a stop that somebody asks for meanwhile wins", () => {
  const world = ran(
    guestOf("stopped", requested),
    { power: "stopped" },
    { state: "stopping", reason: "Unhealthy" },
  );
  check({ name: "", world, status: { state: "stopped" }, events: ["Stopped"] });
});

test("restartPolicy never leaves it running, and it is not ready", () => {
  const world = running("unhealthy", { restartPolicy: "never" });
  check({ name: "", world, status: { state: "running" } });
  expect(readyOf(world)).toMatchObject({ status: "false", reason: "Unhealthy" });
});
