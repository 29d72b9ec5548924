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

/** The conditions of an instance whose guest runs. `restartNeeded`: why it has to be restarted. */
export function runningConditions(
  world: InstanceWorld,
  now: Instant,
  restartNeeded: string | undefined,
): Condition[] {
  const others = withRestart(world.instance?.status.conditions ?? [], restartNeeded, now);
  const health = world.guest?.observed.health ?? "healthy";
  return health === "healthy" ? withServices(others, world, now) : withHealth(others, health, now);
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
  const wasReady = conditions.some((condition) => condition.type === "Ready" && condition.status === "true");
  if (wasReady && world.instance?.status.state === "running") return [...conditions];
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
