import { type Instant, toTimestamp } from "../../core/clock.ts";
import { type Condition, withCondition } from "../../kinds/kind.ts";
import type { InstanceWorld } from "./world.ts";

type Health = "starting" | "healthy" | "unhealthy";

/** Identifies one run of a guest and the services to look for; undefined when there is nothing to look for. */
export function probeTarget(world: InstanceWorld): string | undefined {
  const services = world.instance?.spec.services ?? [];
  if (services.length === 0) return undefined;
  const ports = services.map((service) => service.port).join(",");
  return `${world.guest?.observed.runId ?? ""}:${ports}`;
}

/** Identifies one run of a guest and how its health is checked; undefined when it is not. */
export function checkTarget(world: InstanceWorld): string | undefined {
  const check = world.instance?.spec.healthCheck;
  return check && `${world.guest?.observed.runId ?? ""}:${JSON.stringify(check)}`;
}

/** The conditions of an instance whose guest runs. `restartNeeded`: why it has to be restarted. */
export function runningConditions(
  world: InstanceWorld,
  now: Instant,
  restartNeeded: string | undefined,
): Condition[] {
  const others = withRestart(world.instance?.status.conditions ?? [], restartNeeded, now);
  const health = world.guest?.observed.health ?? "healthy";
  if (health !== "healthy") return withHealth(others, health, now);
  const served = withServices(others, world, now);
  return wasReady(served) ? withCheck(others, served, world, now) : served;
}

/** `served`: as it is as far as its services go, which answer. */
function withCheck(
  others: readonly Condition[],
  served: Condition[],
  world: InstanceWorld,
  now: Instant,
): Condition[] {
  const target = checkTarget(world);
  if (target === undefined) return served;
  const check = world.check?.target === target ? world.check : undefined;
  if (check?.result === "healthy") return withReady(others, true, "Healthy", "", now);
  if (check?.result === "unhealthy") {
    const since = check.failingSince === undefined ? "" : ` since ${toTimestamp(check.failingSince)}`;
    const message = `its health check fails${since}: ${check.saw ?? "it was not asked"}`;
    return withReady(others, false, check.unsupported ? "Unsupported" : "Unhealthy", message, now);
  }
  if (wasReady(others) && world.instance?.status.state === "running") return [...others];
  const saw = check?.saw === undefined ? "" : `; now ${check.saw}`;
  return withReady(others, false, "HealthUnknown", `waiting for its health check to succeed${saw}`, now);
}

function wasReady(conditions: readonly Condition[]): boolean {
  return conditions.some((condition) => condition.type === "Ready" && condition.status === "true");
}

function withHealth(conditions: readonly Condition[], health: Health, now: Instant): Condition[] {
  return health === "starting"
    ? withReady(conditions, false, "HealthUnknown", "waiting for the first success of its health check", now)
    : withReady(
        conditions,
        false,
        "Unhealthy",
        "its health check fails; its log shows what it is doing",
        now,
      );
}

function withServices(conditions: readonly Condition[], world: InstanceWorld, now: Instant): Condition[] {
  const target = probeTarget(world);
  if (target === undefined) return withReady(conditions, true, "Running", "", now);
  const current = world.probe?.target === target ? world.probe : undefined;
  if (current?.result === "ready") return withReady(conditions, true, "ServicesAnswer", "", now);
  if (current?.result === "waiting") {
    const message = `waiting for ${current.waitingFor.join(", ")} to accept connections; the console log shows what the guest is doing`;
    return withReady(conditions, false, "ServicesNotReady", message, now);
  }
  if (wasReady(conditions) && world.instance?.status.state === "running") return [...conditions];
  return withReady(
    conditions,
    false,
    "ServicesNotReady",
    "waiting for the services to accept connections",
    now,
  );
}

/** The conditions of an instance whose guest does not run. */
export function idleConditions(world: InstanceWorld, now: Instant): Condition[] {
  const conditions = withRestart(world.instance?.status.conditions ?? [], undefined, now);
  return withReady(conditions, false, "NotRunning", "the guest does not run", now);
}

/** There only while it is so. */
function withRestart(
  conditions: readonly Condition[],
  message: string | undefined,
  now: Instant,
): Condition[] {
  const type = "RestartNeeded";
  if (message === undefined) return conditions.filter((condition) => condition.type !== type);
  const condition = { type, status: "true", reason: "SizeChanged", message } as const;
  return withCondition(conditions, condition, toTimestamp(now));
}

function withReady(
  conditions: readonly Condition[],
  ready: boolean,
  reason: string,
  message: string,
  now: Instant,
): Condition[] {
  const status = ready ? "true" : "false";
  return withCondition(conditions, { type: "Ready", status, reason, message }, toTimestamp(now));
}
