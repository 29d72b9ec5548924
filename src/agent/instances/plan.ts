/**
 * What to do next for one instance: the whole life of a guest as one pure function of what is seen. The status is the
 * only memory that outlives the agent; the handle is in it before the guest first runs.
 *
 * Invariants: a plan that starts a guest reports its handle in the same round, before; a guest of another host, of a
 * newer generation than the order, or without its instance is never touched; a world in which everything is as wanted
 * leads to no action and no change of status.
 */
import { fromTimestamp, type Instant, toTimestamp } from "../../core/clock.ts";
import { type Instance, type InstanceStatus, wantsRebuild } from "../../kinds/instance.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import { checkTarget, idleConditions, probeTarget, runningConditions } from "./conditions.ts";
import { type Gate, imageGate, openGate, outsideReasons } from "./gates.ts";
import { isSame, planSize } from "./size.ts";
import type {
  InstanceAction,
  InstanceEvent,
  InstanceReport,
  InstanceWorld,
  PlacedGuest,
  Size,
  StartAttempt,
} from "./world.ts";

export type InstancePlan = Plan<InstanceAction, InstanceReport>;

/** How long a guest may take to shut down before it is killed. */
export const stopGraceMs = 30_000;
/** The same for one whose health check failed for good: it may not hear any more, and nobody is served meanwhile. */
const unhealthyGraceMs = 10_000;
/** A guest that ran this long has recovered: the next back-off is the shortest again. */
export const recoveredAfterMs = 10 * 60_000;
/** Back-off after a guest ended by itself: doubles from the first to the last. */
export const restartBackoff = { minMs: 1_000, maxMs: 60_000 } as const;

/** What takes longer than this is told while it is under way. */
export const newsAfterMs = 100;

/** For what is bound to come at once. */
const patienceMs = 5_000;

const nothing: InstancePlan = { status: undefined, actions: [] };

export function planInstance(world: InstanceWorld, now: Instant): InstancePlan {
  const { instance } = world;
  if (!instance || instance.status.host !== world.hostName) return nothing;
  // An order older than one already followed: the view lags behind, its next change brings the newer one.
  if (instance.metadata.generation < instance.status.observedGeneration) return nothing;
  if (instance.metadata.deletedAt !== undefined) return planDeletion(world, instance, now);
  const { guest } = world;
  if (guest?.observed.state === "running") return planRunning(world, instance, guest, now);
  if (instance.spec.power === "stopped") return planStopped(world, instance, now);
  return planIdle(world, instance, now);
}

/** The part of a status that every report sets. */
type Change = Partial<InstanceStatus> & Pick<InstanceStatus, "state" | "reason" | "message">;

function report(instance: Instance, change: Change, events: InstanceEvent[] = []): InstanceReport {
  const { startedAt, nextStartAt, progress, ...kept } = instance.status;
  const status = {
    ...kept,
    observedGeneration: instance.metadata.generation,
    ...change,
    message: clip(change.message),
  };
  return { status, events };
}

function planDeletion(world: InstanceWorld, instance: Instance, now: Instant): InstancePlan {
  const { guest, volume } = world;
  const { status, metadata } = instance;
  const driver = guest?.driver ?? status.driver;
  const handle = guest?.observed.handle ?? asHandle(status.handle);
  const actions: InstanceAction[] = [];
  if (driver !== undefined && handle) actions.push({ type: "destroy", driver, handle });
  actions.push({ type: "release", instance });
  if (volume) actions.push({ type: "remove-disk", volume });
  if (metadata.finalizers.includes("agent")) actions.push({ type: "finalize", instance, volume });
  const status_ = report(instance, {
    state: "deleting",
    reason: "Deleting",
    message: "its guest, disk and addresses are being taken away",
    conditions: idleConditions(world, now),
  });
  return { status: status_, actions, reportAfterMs: newsAfterMs };
}

function planRunning(
  world: InstanceWorld,
  instance: Instance,
  guest: PlacedGuest,
  now: Instant,
): InstancePlan {
  const { spec, status } = instance;
  const { handle } = guest.observed;
  const restart = spec.restarts > status.observedRestarts;
  const rebuild = canRebuild(world, instance);
  if (spec.power === "stopped" || restart || rebuild || world.hold !== undefined) {
    const stopping = report(instance, {
      state: "stopping",
      reason: stopReason(world, spec.power, rebuild),
      message: `was asked to shut down; killed after ${stopGraceMs / 1000} s`,
      driver: guest.driver,
      handle,
      conditions: idleConditions(world, now),
      ...keepStart(status),
    });
    return {
      status: stopping,
      actions: [{ type: "stop", driver: guest.driver, handle, graceMs: stopGraceMs }],
    };
  }
  if (guest.observed.health === "unhealthy" && spec.restartPolicy !== "never") {
    return planUnhealthy(world, instance, guest, now);
  }
  const sizes = planSize(instance, world.sizing, guest.driver);
  const { driver } = guest;
  const resize: InstanceAction[] = sizes.apply
    ? [{ type: "resize", uid: instance.metadata.uid, driver, handle, size: sizes.apply }]
    : [];
  const justStarted = status.state !== "running" || status.startedAt === undefined;
  const startedAt = justStarted ? toTimestamp(now) : (status.startedAt ?? toTimestamp(now));
  const ranMs = now - (fromTimestamp(startedAt) ?? now);
  const recovered = ranMs >= recoveredAfterMs;
  const running = report(
    instance,
    {
      state: "running",
      reason: "Running",
      message: waitsForRebuild(world, instance),
      driver,
      handle,
      size: sizes.has,
      startedAt,
      recentCrashes: recovered ? 0 : status.recentCrashes,
      conditions: runningConditions(world, now, sizes.restartNeeded),
    },
    justStarted ? [normal("Started", `the guest runs (driver ${driver})`)] : resized(status, sizes.has),
  );
  return {
    status: running,
    actions: [...resize, ...probeActions(world, instance), ...checkActions(world, instance, guest)],
    ...(status.recentCrashes > 0 && !recovered ? { recheckAfterMs: recoveredAfterMs - ranMs } : {}),
  };
}

function stopReason({ hold }: InstanceWorld, power: "running" | "stopped", rebuild: boolean): string {
  if (hold !== undefined && power === "running") return "RollingBack";
  if (rebuild) return "Rebuilding";
  return power === "stopped" ? "Stopping" : "Restarting";
}

/** Wanted, and what it is made of is here: a guest is not stopped before. */
function canRebuild(world: InstanceWorld, instance: Instance): boolean {
  return wantsRebuild(instance) && "imageDigest" in imageGate(world);
}

function waitsForRebuild(world: InstanceWorld, instance: Instance): string {
  const gate = wantsRebuild(instance) ? imageGate(world) : undefined;
  return gate && "message" in gate ? `runs as before, and is rebuilt later: ${gate.message}` : "";
}

function resized({ size }: InstanceStatus, has: Size): InstanceEvent[] {
  if (!size || isSame(size, has)) return [];
  return [normal("Resized", `the guest has ${has.cpus} CPUs and ${has.memoryMib} MiB of memory now`)];
}

/** What does not do its work for good has ended, though it runs: it is ended, and the restart policy decides. */
function planUnhealthy(
  world: InstanceWorld,
  instance: Instance,
  guest: PlacedGuest,
  now: Instant,
): InstancePlan {
  const { handle } = guest.observed;
  const stopping = report(instance, {
    state: "stopping",
    reason: unhealthy,
    message: "its health check failed for good; it is stopped and started again",
    driver: guest.driver,
    handle,
    conditions: runningConditions(world, now, undefined),
    ...keepStart(instance.status),
  });
  return {
    status: stopping,
    actions: [{ type: "stop", driver: guest.driver, handle, graceMs: unhealthyGraceMs }],
  };
}

/** Reason of an instance whose guest is stopped because its health check failed. */
const unhealthy = "Unhealthy";

function wasUnhealthy({ status }: Instance): boolean {
  return status.state === "stopping" && status.reason === unhealthy;
}

function probeActions(world: InstanceWorld, instance: Instance): InstanceAction[] {
  const target = probeTarget(world);
  const address = instance.status.nic?.ipAddress;
  const network = world.network?.metadata.uid;
  if (target === undefined || address === undefined || network === undefined) return [];
  if (world.probe?.target === target) return [];
  const services = instance.spec.services.map(({ name, port }) => ({ name, port }));
  return [{ type: "probe", key: world.key, uid: instance.metadata.uid, target, network, address, services }];
}

function checkActions(world: InstanceWorld, instance: Instance, guest: PlacedGuest): InstanceAction[] {
  const target = checkTarget(world);
  const check = instance.spec.healthCheck;
  const address = instance.status.nic?.ipAddress;
  const network = world.network?.metadata.uid;
  if (target === undefined || !check || address === undefined || network === undefined) return [];
  if (world.check?.target === target) return [];
  const { driver, observed } = guest;
  const { key } = world;
  const { uid } = instance.metadata;
  return [{ type: "check", key, uid, target, network, address, driver, handle: observed.handle, check }];
}

function planStopped(world: InstanceWorld, instance: Instance, now: Instant): InstancePlan {
  const wasRunning = instance.status.state !== "stopped" && instance.status.handle !== undefined;
  if (wantsRebuild(instance) && hasFailed(instance)) return stay(instance);
  // One that never had a root gets the newest with its first start.
  const rebuild = wantsRebuild(instance) && instance.status.imageDigest !== undefined;
  if (rebuild && !isPrepared(world, instance)) {
    const gate = openGate(world);
    if (gate.open) return planPreparation(world, instance, gate, rebuilding(world, now));
  }
  const stopped = report(
    instance,
    {
      state: "stopped",
      reason: "Stopped",
      message: "does not run, as wanted",
      ...(rebuild ? recordOf(world, instance) : {}),
      conditions: idleConditions(world, now),
    },
    [
      ...(wasRunning ? [normal("Stopped", "the guest was stopped")] : []),
      ...(rebuild ? rebuiltEvents(world, instance) : []),
    ],
  );
  return { status: stopped, actions: [] };
}

/** Wanted running, and no guest runs. */
function planIdle(world: InstanceWorld, instance: Instance, now: Instant): InstancePlan {
  const { spec, status } = instance;
  if (world.hold !== undefined) return planHold(world, instance, world.hold, now);
  const asked = spec.restarts > status.observedRestarts || (wantsRebuild(instance) && !hasFailed(instance));
  if (!asked && endedByItself(world, instance)) {
    const ended = planEnd(world, instance, now);
    if (ended) return ended;
  }
  if (!asked) {
    const waitMs = (fromTimestamp(status.nextStartAt ?? "") ?? 0) - now;
    if (status.state === "backoff" && waitMs > 0) return stay(instance, waitMs);
    if (status.state === "stopped" && status.reason === "PoweredOff") return stay(instance);
    if (hasFailed(instance)) return stay(instance);
  }
  return planStart(world, instance, asked, now);
}

/** It goes on by itself once its disks are as they were. */
function planHold(world: InstanceWorld, instance: Instance, snapshot: string, now: Instant): InstancePlan {
  const message = `waiting for its disks to be put back to the snapshot "${snapshot}"`;
  const change: Change = {
    ...{ state: "pending", reason: "RollingBack", message },
    conditions: idleConditions(world, now),
  };
  return { status: report(instance, change), actions: [] };
}

/** For good, unless somebody changes something. */
function hasFailed({ status, metadata }: Instance): boolean {
  const changed = metadata.generation !== status.observedGeneration;
  return status.state === "failed" && !changed && !outsideReasons.has(status.reason);
}

/** Nothing to do and nothing to tell. */
function stay(instance: Instance, recheckAfterMs?: number): InstancePlan {
  const status = { ...instance.status, observedGeneration: instance.metadata.generation };
  return {
    status: { status, events: [] },
    actions: [],
    ...(recheckAfterMs === undefined ? {} : { recheckAfterMs }),
  };
}

/** Did the guest end since the last report, without being asked to? */
function endedByItself(world: InstanceWorld, instance: Instance): boolean {
  const { state } = instance.status;
  if (wasUnhealthy(instance)) return true;
  return state === "running" || (state === "starting" && world.attempt?.stage === "started");
}

/** The guest's end as its restart policy wants it; undefined when it is to start again at once. */
function planEnd(world: InstanceWorld, instance: Instance, now: Instant): InstancePlan | undefined {
  const exit = world.guest?.observed.exit;
  const reason = wasUnhealthy(instance) ? "crash" : (exit?.reason ?? "crash");
  if (reason === "requested") return undefined;
  const { restartPolicy } = instance.spec;
  const conditions = idleConditions(world, now);
  if (reason === "poweroff" && restartPolicy !== "always") {
    const message = `the guest shut itself down, and restartPolicy ${restartPolicy} leaves it so; restart it to run it again`;
    const events = [normal("PoweredOff", "the guest shut itself down")];
    const change: Change = { state: "stopped", reason: "PoweredOff", message, conditions };
    return { status: report(instance, change, events), actions: [] };
  }
  const what = reason === "poweroff" ? "the guest shut itself down" : crashText(world);
  if (restartPolicy === "never") {
    const message = `${what}, and restartPolicy never leaves it so; restart it to run it again`;
    const change: Change = { state: "failed", reason: "Crashed", message, conditions };
    return { status: report(instance, change, [warning("Crashed", what)]), actions: [] };
  }
  return planBackoff(instance, what, reason === "poweroff" ? "PoweredOff" : "Crashed", conditions, now);
}

function planBackoff(
  instance: Instance,
  what: string,
  reason: string,
  conditions: InstanceStatus["conditions"],
  now: Instant,
): InstancePlan {
  const { status } = instance;
  const ranMs = now - (fromTimestamp(status.startedAt ?? "") ?? now);
  const before = ranMs >= recoveredAfterMs ? 0 : status.recentCrashes;
  const delayMs = Math.min(restartBackoff.maxMs, restartBackoff.minMs * 2 ** Math.min(before, 16));
  const backoff = report(
    instance,
    {
      state: "backoff",
      reason,
      message: `${what}; starts again ${delayMs / 1000} s after that`,
      crashes: status.crashes + 1,
      recentCrashes: before + 1,
      nextStartAt: toTimestamp(now + delayMs),
      conditions,
    },
    [
      reason === "Crashed" ? warning(reason, what) : normal(reason, what),
      normal("BackOff", `starts again in ${delayMs / 1000} s (${before + 1} in a row)`),
    ],
  );
  return { status: backoff, actions: [], recheckAfterMs: delayMs };
}

/** Reasons that pass by themselves at once, and are not worth a report before that. */
const soonReady: ReadonlySet<string> = new Set(["VolumeNotReady", "CardNotReady"]);

function planStart(world: InstanceWorld, instance: Instance, asked: boolean, now: Instant): InstancePlan {
  const { status, spec, metadata } = instance;
  const gate = openGate(world);
  if (!gate.open) {
    const { state, reason, message } = gate;
    const youngForMs = (fromTimestamp(metadata.createdAt) ?? now) + patienceMs - now;
    // Its volume was placed with it, its cards were created with it: their news are just on their way.
    if (soonReady.has(reason) && youngForMs > 0) {
      return { status: undefined, actions: [], recheckAfterMs: youngForMs };
    }
    const change: Change = { state, reason, message, conditions: idleConditions(world, now) };
    return { status: report(instance, change), actions: [] };
  }
  const starting: Change = {
    ...(wantsRebuild(instance) && status.imageDigest !== undefined
      ? rebuilding(world, now)
      : made(world, now)),
    ...(asked ? { recentCrashes: 0 } : {}),
  };
  if (!isPrepared(world, instance)) return planPreparation(world, instance, gate, starting);
  const { driver, handle, size } = world.attempt;
  const created =
    status.handle === undefined ? [normal("Created", `disk and guest are made (driver ${driver})`)] : [];
  const recorded: Change = {
    ...starting,
    message: "the guest is being started",
    ...recordOf(world, instance),
    size,
    observedRestarts: spec.restarts,
  };
  return {
    status: report(instance, recorded, [...created, ...rebuiltEvents(world, instance)]),
    actions: [{ type: "start", uid: metadata.uid, driver, handle }],
  };
}

type Prepared = Extract<StartAttempt, { stage: "prepared" }>;

/** This process has made disk and guest, and the root is the one that is wanted. */
function isPrepared(
  world: InstanceWorld,
  { spec }: Instance,
): world is InstanceWorld & { attempt: Prepared } {
  const { attempt } = world;
  return attempt?.stage === "prepared" && attempt.rebuilds === spec.rebuilds;
}

/** Disk and guest are made. */
function planPreparation(
  world: InstanceWorld,
  instance: Instance,
  { network, volume, imageDigest, driver, publicKeys }: Extract<Gate, { open: true }>,
  change: Change,
): InstancePlan {
  const { status } = instance;
  // What a try that failed had to say stays until the next step is reached.
  const repeated = status.state === "starting" ? { reason: status.reason, message: status.message } : {};
  return {
    status: report(instance, { ...change, ...repeated }),
    actions: [
      { type: "prepare", key: world.key, instance, network, volume, imageDigest, driver, publicKeys },
    ],
    reportAfterMs: newsAfterMs,
  };
}

const made = (world: InstanceWorld, now: Instant): Change => ({
  ...{ state: "starting", reason: "Starting", message: "its disk, network and guest are being made" },
  conditions: idleConditions(world, now),
});

const rebuilding = (world: InstanceWorld, now: Instant): Change => ({
  ...{ state: "starting", reason: "Rebuilding", message: "its root is being made anew from the image" },
  conditions: idleConditions(world, now),
});

/** What is recorded of a guest that was made, before it first runs. */
function recordOf(world: InstanceWorld, instance: Instance): Partial<InstanceStatus> {
  if (!isPrepared(world, instance)) return {};
  const { driver, handle, imageDigest, rebuilds } = world.attempt;
  return { driver, handle, imageDigest, ...(rebuilds > 0 && { observedRebuilds: rebuilds }) };
}

function rebuiltEvents(world: InstanceWorld, instance: Instance): InstanceEvent[] {
  if (!isPrepared(world, instance) || !wantsRebuild(instance)) return [];
  if (instance.status.imageDigest === undefined) return [];
  return [normal("Rebuilt", `the root was made anew from the image "${instance.spec.image}"`)];
}

function keepStart(status: InstanceStatus): Pick<InstanceStatus, "startedAt"> {
  return status.startedAt === undefined ? {} : { startedAt: status.startedAt };
}

function crashText(world: InstanceWorld): string {
  const { guest, instance } = world;
  if (instance && wasUnhealthy(instance)) return "the guest was stopped because its health check failed";
  if (!guest) return "the guest has vanished from the host";
  const message = guest.observed.exit?.message;
  return message
    ? `the guest crashed: ${message}`
    : "the guest ended without a trace (was the host restarted?)";
}

function asHandle(value: unknown): PlacedGuest["observed"]["handle"] | undefined {
  return typeof value === "object" && value !== null
    ? (value as PlacedGuest["observed"]["handle"])
    : undefined;
}

function normal(reason: string, message: string): InstanceEvent {
  return { severity: "normal", reason, message: clip(message) };
}

function warning(reason: string, message: string): InstanceEvent {
  return { severity: "warning", reason, message: clip(message) };
}

/** Within the bound of a message. */
function clip(message: string): string {
  return message.length > 1000 ? `${message.slice(0, 999)}…` : message;
}
