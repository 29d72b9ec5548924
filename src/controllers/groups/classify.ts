/** What state each member of a group is in, by what its host reports. Pure. */
import { fromTimestamp, type Instant } from "../../core/clock.ts";
import type { Group } from "../../kinds/group.ts";
import type { Instance } from "../../kinds/instance.ts";
import { revisionOf, templateOf } from "./template.ts";
import type { ObservedMember, Phase } from "./world.ts";

/**
 * | health    | meaning                                                                            |
 * |-----------|------------------------------------------------------------------------------------|
 * | ready     | it answers                                                                          |
 * | starting  | not yet, or not again, and there is time left for it                                |
 * | unhealthy | it was healthy once, and has not been for `healAfterSeconds`                        |
 * |           | or its host gives no sign of life for so long                                        |
 * | failed    | it cannot go on, or never became healthy within `update.timeoutSeconds`             |
 */
export type Health = "ready" | "starting" | "unhealthy" | "failed";

export interface Member {
  instance: Instance;
  revision: string;
  phase: Phase;
  phaseSince: Instant;
  health: Health;
  /** Why it is not ready. */
  why: string;
  /** First time it was seen healthy. */
  readyAt: Instant | undefined;
  /** Healthy for `update.settleSeconds`. */
  settled: boolean;
  /** Its host is silent, so it may well be running. */
  lost: boolean;
  /** No host has room for it. */
  unplaced: boolean;
  createdAt: Instant;
  /** When `health` or `settled` may change without news from its host. */
  changesAt: Instant | undefined;
}

/** Starts that fail in a row before a new member is given up. */
const crashesOfFailure = 3;

export function classify(observed: ObservedMember, group: Group, now: Instant): Member {
  const { instance } = observed;
  const { member, conditions, host, reason } = instance.status;
  const ready = conditions.find((condition) => condition.type === "Ready");
  const lostAt =
    observed.lostAt === undefined ? undefined : observed.lostAt + group.spec.healAfterSeconds * 1000;
  const lost = lostAt !== undefined && lostAt <= now;
  const isReady = !lost && instance.status.state === "running" && ready?.status === "true";
  const readyAt = timeOf(member?.readyAt) ?? (isReady ? now : undefined);
  const health = lost
    ? { health: "unhealthy" as const, why: `its host ${host} gives no sign of life` }
    : healthOf(observed, group, { isReady, readyAt, since: timeOf(ready?.since) }, now);
  const settleAt = (timeOf(ready?.since) ?? now) + group.spec.update.settleSeconds * 1000;
  const settled = isReady && settleAt <= now;
  const changes = [lost ? undefined : lostAt, isReady && !settled ? settleAt : health.changesAt];
  const changesAt = changes.filter((at) => at !== undefined).sort((a, b) => a - b)[0];
  return {
    instance,
    revision: member?.revision ?? revisionOf(templateOf(instance.spec)),
    phase: member?.phase ?? "serving",
    phaseSince: timeOf(member?.since) ?? now,
    health: health.health,
    why: isReady ? "" : health.why || ready?.message || instance.status.message || instance.status.state,
    readyAt,
    settled,
    lost,
    unplaced: host === undefined && reason === "NoHost",
    createdAt: timeOf(instance.metadata.createdAt) ?? now,
    changesAt,
  };
}

interface Readiness {
  isReady: boolean;
  readyAt: Instant | undefined;
  /** When Ready became what it is. */
  since: Instant | undefined;
}

function healthOf(
  { instance, begunAt }: ObservedMember,
  { spec }: Group,
  { isReady, readyAt, since }: Readiness,
  now: Instant,
): { health: Health; why: string; changesAt?: Instant | undefined } {
  const { state, message, recentCrashes, conditions } = instance.status;
  if (isReady) return { health: "ready", why: "" };
  if (state === "failed") return { health: "failed", why: message };
  if (state === "stopped" && instance.spec.power === "running") return { health: "failed", why: "it ended" };
  if (readyAt === undefined) {
    if (recentCrashes >= crashesOfFailure) {
      return { health: "failed", why: `it ended ${recentCrashes} times: ${message}` };
    }
    const { timeoutSeconds } = spec.update;
    const end = begunAt === undefined ? undefined : begunAt + timeoutSeconds * 1000;
    if (end === undefined || now < end) return { health: "starting", why: "", changesAt: end };
    const said = conditions.find((condition) => condition.type === "Ready")?.message || message;
    return { health: "failed", why: `not healthy within ${timeoutSeconds} s${said ? `: ${said}` : ""}` };
  }
  const end = (since ?? readyAt) + spec.healAfterSeconds * 1000;
  if (now < end) return { health: "starting", why: "", changesAt: end };
  return { health: "unhealthy", why: `not healthy for ${spec.healAfterSeconds} s` };
}

function timeOf(text: string | undefined): Instant | undefined {
  return text === undefined ? undefined : fromTimestamp(text);
}
