/** Takes and removes the snapshots of this host's volumes and instances, and puts those back to them. */
import { toTimestamp } from "../../core/clock.ts";
import { hasCode, StrataError, toStrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { isRollingBack, type Snapshot, snapshotKind, type VolumePart } from "../../kinds/snapshot.ts";
import { mountPathOf, type Volume } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { siblingKey } from "../views.ts";
import { forgetEndedCopies } from "./copiers.ts";
import { poolFor, recordedVolumes } from "./guest-volumes.ts";
import { completeCopies, copyAtOneMoment, guestOf, type Moment, memoryOf, rootOf } from "./moments.ts";
import { lostHelp, removeDisk } from "./remove-disk.ts";
import { type RollbackTarget, rollbackTarget } from "./rollbacks.ts";
import {
  bootedMessage,
  type MemoryUse,
  planSnapshot,
  rolledBack,
  type SnapshotAction,
  type SnapshotWorld,
} from "./snapshot-plan.ts";

type Status = Snapshot["status"];

export function createSnapshotReconciler(
  context: AgentContext,
): Reconciler<SnapshotWorld, SnapshotAction, Status> {
  const { views, client, hostName } = context;
  const finalized = new Set<string>();
  const report = (snapshot: Snapshot, status: Status, signal: AbortSignal) =>
    reportStatus(client, snapshotKind, views.snapshots, snapshot, status, signal);
  /** With what was reported since the round began. */
  const now = (snapshot: Snapshot) => views.snapshots.byUid(snapshot.metadata.uid) ?? snapshot;
  return {
    name: "snapshots",
    watches: [{ name: "snapshots", urgent: true, keys: (signal) => views.snapshots.watchKeys(signal) }],
    async observe(key) {
      const found = views.snapshots.get(key);
      const snapshot = found && !finalized.has(found.metadata.uid) ? found : undefined;
      return {
        hostName,
        snapshot,
        source: snapshot !== undefined && isSourceThere(context, snapshot),
        rollback: snapshot && (await observeRollback(context, snapshot)),
        memory: snapshot && (await observeMemory(context, snapshot)),
      };
    },
    plan: planSnapshot,
    async execute(action, signal) {
      const { snapshot } = action;
      const { metadata } = snapshot;
      switch (action.type) {
        case "take": {
          const taken = await take(context, snapshot, signal);
          const current = now(snapshot);
          const { memoryBytes, withoutMemory, ...kept } = current.status;
          await report(current, { ...kept, ...taken }, signal);
          return;
        }
        case "roll-back": {
          const memory = await rollBack(context, snapshot, action.target, signal);
          const current = now(snapshot);
          // What was asked for meanwhile is carried out after it.
          const done = rolledBack({ ...snapshot, status: current.status }, "", memory);
          await report(current, done, signal);
          return;
        }
        case "complete": {
          const completed = await complete(context, snapshot, signal);
          const current = now(snapshot);
          await report(current, { ...current.status, ...completed }, signal);
          return forgetEndedCopies(context, metadata.uid);
        }
        case "remove-disk":
          return removeDisk(context, { uid: metadata.uid, of: snapshot }, signal);
        case "finalize":
          await client.removeFinalizer(snapshotKind, metadata as Ref, metadata.uid, "agent", { signal });
          finalized.add(metadata.uid);
      }
    },
    async report(_key, { snapshot }, status, signal) {
      if (snapshot) await report(snapshot, status, signal);
    },
    async failed(key, failure, signal) {
      const snapshot = views.snapshots.get(key);
      if (!snapshot || snapshot.status.host !== hostName) return;
      const leaves = snapshot.metadata.deletedAt !== undefined;
      const doing = leaves ? "delete" : isRollingBack(snapshot) ? "put disks back to" : "take";
      const error = toStrataError(failure.error, `${doing} snapshot "${snapshot.metadata.name}"`);
      const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
      const pools = [snapshot.status, ...(snapshot.status.volumes ?? [])].map(({ pool }) => pool);
      const help = lostHelp(context, snapshot, pools);
      const message = `${error.message.slice(0, 700)}; trying again in ${seconds} s${help}`;
      await report(snapshot, { ...snapshot.status, message }, signal);
    },
    // A deletion does not wait until all is copied.
    obsolete: (key, world) =>
      world.snapshot?.metadata.deletedAt === undefined &&
      views.snapshots.get(key)?.metadata.deletedAt !== undefined,
    lane: (key) => (views.snapshots.get(key)?.status.state === "copying" ? "copying" : "snapshots"),
  };
}

function isSourceThere({ views }: AgentContext, { status }: Snapshot): boolean {
  const { volumeUid, instanceUid } = status;
  if (instanceUid !== undefined) return views.instances.byUid(instanceUid) !== undefined;
  return volumeUid !== undefined && views.volumes.byUid(volumeUid) !== undefined;
}

async function isRunning(context: AgentContext, instance: Instance): Promise<boolean> {
  const { uid } = instance.metadata;
  if (context.guestCards.isStarting(uid)) return true;
  const guest = guestOf(context, instance);
  return guest !== undefined && (await guest.driver.inspect(guest.uid))?.state === "running";
}

/** Fixes the moment; what is not copied with that is copied while writers go on. */
async function take(
  context: AgentContext,
  snapshot: Snapshot,
  signal: AbortSignal,
): Promise<Partial<Status>> {
  const { generation } = snapshot.metadata;
  const to = snapshot.metadata.uid as Uid;
  const { instanceUid, volumeUid = "", pool } = snapshot.status;
  const told = ({ consistency, stillMs, copying, memory }: Moment): Partial<Status> => {
    const kept =
      memory && ("missing" in memory ? { withoutMemory: memory.missing } : { memoryBytes: memory.sizeBytes });
    const state = copying
      ? ({ state: "copying", message: "is being copied while its writers go on" } as const)
      : ready({ ...snapshot.status, ...kept });
    return {
      ...state,
      ...{ consistency, observedGeneration: generation },
      takenAt: toTimestamp(context.clock.now()),
      ...(consistency === "unused" ? {} : { stillMs }),
      ...kept,
    };
  };
  if (instanceUid === undefined) return told(await beginVolume(context, { volumeUid, to, pool }, signal));
  const { rootUid, volumes, ...moment } = await beginInstance(
    context,
    { instanceUid, to, withMemory: snapshot.spec.memory },
    signal,
  );
  return { ...told(moment), rootUid, volumes };
}

function ready({ cutOff = 0, withoutMemory }: Status): Partial<Status> {
  const times = cutOff === 1 ? "once" : `${cutOff} times`;
  const notes = [
    ...(cutOff === 0 ? [] : [`copying was cut off ${times}: it is of a later moment than the first`]),
    ...(withoutMemory === undefined ? [] : [`it has no memory in it: ${withoutMemory}`]),
  ];
  return { state: "ready", message: notes.join("; ") };
}

/** What was cut off is taken anew, of a later moment, and says so: nobody was told that it is ready. */
async function complete(
  context: AgentContext,
  snapshot: Snapshot,
  signal: AbortSignal,
): Promise<Partial<Status>> {
  const { instanceUid, rootUid = "", volumes = [], volumeUid = "", pool } = snapshot.status;
  const request =
    instanceUid === undefined
      ? { volume: volumeUid, pool: poolFor(context, pool) }
      : { disks: [rootUid, ...volumes.map(({ uid }) => uid)] };
  try {
    await completeCopies(context, request, snapshot.metadata.uid as Uid, signal);
    return { ...ready(snapshot.status), observedGeneration: snapshot.metadata.generation };
  } catch (error) {
    signal.throwIfAborted();
    if (!hasCode(error, "Unavailable", "NotFound")) throw error;
    const { message } = toStrataError(error, "copy disks");
    const cutOff = (snapshot.status.cutOff ?? 0) + 1;
    return { state: "pending", cutOff, message: `is taken anew: ${message}`.slice(0, 1000) };
  }
}

/** What the state of a machine's devices takes at most, and the books about its memory. */
const devicesMib = 64;

export type InstanceMoment = Moment & { rootUid: string; volumes: VolumePart[] };

/** Copies all disks of an instance as they are at one moment, as parts of `to`. */
export async function copyInstance(
  context: AgentContext,
  { instanceUid, to }: { instanceUid: string; to: string },
  signal: AbortSignal,
): Promise<InstanceMoment> {
  const moment = await beginInstance(context, { instanceUid, to: to as Uid }, signal);
  if (!moment.copying) return moment;
  const disks = [moment.rootUid, ...moment.volumes.map(({ uid }) => uid)];
  await completeCopies(context, { disks }, to as Uid, signal);
  await forgetEndedCopies(context, to);
  return { ...moment, copying: false };
}

/** Copies a volume as it is at one moment into `to`, in the storage pool of that name; its writers are kept still meanwhile. */
export async function copyVolume(
  context: AgentContext,
  { volumeUid, to, pool }: { volumeUid: string; to: string; pool: string | undefined },
  signal: AbortSignal,
): Promise<Moment> {
  const moment = await beginVolume(context, { volumeUid, to: to as Uid, pool }, signal);
  if (!moment.copying) return moment;
  await completeCopies(context, { volume: volumeUid, pool: poolFor(context, pool) }, to as Uid, signal);
  await forgetEndedCopies(context, to);
  return { ...moment, copying: false };
}

async function beginInstance(
  context: AgentContext,
  { instanceUid, to, withMemory = false }: { instanceUid: string; to: Uid; withMemory?: boolean },
  signal: AbortSignal,
): Promise<InstanceMoment> {
  const instance = context.views.instances.byUid(instanceUid);
  if (!instance) throw new StrataError("NotFound", "the instance is gone");
  const rootUid = rootOf(context, instance);
  const volumes = recordedVolumes(context, instance);
  const disks = [rootUid, ...volumes.map((volume) => volume.metadata.uid)];
  const { memoryMib } = instance.status.size ?? instance.spec;
  const request = { disks, ...(withMemory && { memoryBytes: (memoryMib + devicesMib) * 1024 ** 2 }) };
  const moment = await copyAtOneMoment(context, instance, request, to, signal);
  return { ...moment, rootUid, volumes: volumes.map(partOf) };
}

function beginVolume(
  context: AgentContext,
  { volumeUid, to, pool }: { volumeUid: string; to: Uid; pool: string | undefined },
  signal: AbortSignal,
): Promise<Moment> {
  const volume = context.views.volumes.byUid(volumeUid);
  const holder = volume && holderOf(context, volume);
  const request = { volume: volumeUid, pool: poolFor(context, pool) };
  return copyAtOneMoment(context, holder, request, to, signal);
}

function holderOf({ views }: AgentContext, volume: Volume): Instance | undefined {
  const name = volume.status.instance;
  return name === undefined ? undefined : views.instances.get(siblingKey(instanceKind, volume, name));
}

function partOf(volume: Volume): VolumePart {
  const { metadata, spec } = volume;
  const { sizeMib, fileSystem } = spec;
  const { pool } = volume.status;
  return {
    ...{ name: metadata.name, uid: metadata.uid, sizeMib, path: mountPathOf(volume) },
    ...(fileSystem === undefined ? {} : { fileSystem }),
    ...(pool === undefined ? {} : { pool }),
  };
}

async function observeRollback(
  context: AgentContext,
  snapshot: Snapshot,
): Promise<SnapshotWorld["rollback"]> {
  if (!isRollingBack(snapshot)) return undefined;
  const target = rollbackTarget(context, snapshot);
  if (!target) return undefined;
  const running: string[] = [];
  for (const instance of target.instances) {
    if (await isRunning(context, instance)) running.push(instance.metadata.name);
  }
  return { ...target, running };
}

/** Names the memory of one rollback. */
function memoryId({ metadata, spec }: Snapshot): string {
  return `${metadata.uid}-${spec.rollbacks}`;
}

async function observeMemory(context: AgentContext, snapshot: Snapshot): Promise<SnapshotWorld["memory"]> {
  const { status } = snapshot;
  if (status.memoryUse !== "waiting") return undefined;
  const guest = guestOf(context, context.views.instances.byUid(status.instanceUid ?? ""));
  const { memory } = (await guest?.driver.inspect(guest.uid)) ?? {};
  return memory?.id === memoryId(snapshot) ? memory : undefined;
}

/**
 * Looked at once more with the mark set: from then on, nothing starts with these disks. Memory that was put back earlier fits
 * them no more, and is given up first; the snapshot's own is put back last.
 */
async function rollBack(
  context: AgentContext,
  snapshot: Snapshot,
  target: RollbackTarget,
  signal: AbortSignal,
): Promise<MemoryUse | undefined> {
  const { disks, instances } = target;
  const uids = [...disks, ...instances.map((instance) => instance.metadata.uid)];
  return context.rollbacks.during(uids, async () => {
    for (const instance of instances) {
      if (!(await isRunning(context, instance))) continue;
      throw new StrataError("Conflict", `instance "${instance.metadata.name}" has just started`);
    }
    for (const instance of instances) {
      const guest = guestOf(context, instance);
      if (guest) await memoryOf(guest.driver)?.leave(guest.handle, signal);
    }
    await context.disks.restoreTogether(snapshot.metadata.uid, disks, signal);
    return putMemoryBack(context, snapshot, target, signal);
  });
}

/** The disks that it knows of are all as they were, or it is not used. */
async function putMemoryBack(
  context: AgentContext,
  snapshot: Snapshot,
  { disks, instances }: RollbackTarget,
  signal: AbortSignal,
): Promise<MemoryUse | undefined> {
  const { memoryBytes, volumes = [] } = snapshot.status;
  if (memoryBytes === undefined) return undefined;
  const without = (why: string): MemoryUse => ({ memoryUse: "booted", message: bootedMessage(why) });
  const missing = volumes.find(({ uid }) => !disks.includes(uid));
  if (missing) return without(`the volume "${missing.name}" is not attached to it any more`);
  const guest = guestOf(context, instances[0]);
  const memory = guest && memoryOf(guest.driver);
  if (!memory) return without("it has no guest that could use it");
  try {
    const path = await context.disks.memoryFile(snapshot.metadata.uid);
    await memory.putBack(guest.handle, { id: memoryId(snapshot), path }, signal);
  } catch (error) {
    if (!hasCode(error, "NotFound")) throw error;
    return without(error.message);
  }
  return { memoryUse: "waiting", message: "its memory is loaded with the next start of its instance" };
}
