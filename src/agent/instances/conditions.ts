import { type Instant, toTimestamp } from "../../core/clock.ts";
import { type Condition, withCondition } from "../../kinds/kind.ts";
import type { InstanceWorld } from "./world.ts";

/** Identifies one run of a guest and the services to look for; undefined when there is nothing to look for. */
export function probeTarget(world: InstanceWorld): string | undefined {
  const services = world.instance?.spec.services ?? [];
  if (services.length === 0) return undefined;
  const ports = services.map((service) => service.port).join(",");
  return `${world.guest?.observed.runId ?? ""}:${ports}`;
}

/** The conditions of an instance whose guest runs. */
export function runningConditions(world: InstanceWorld, now: Instant): Condition[] {
  const conditions = world.instance?.status.conditions ?? [];
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
  const conditions = world.instance?.status.conditions ?? [];
  return withReady(conditions, false, "NotRunning", "the guest does not run", now);
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
