/** Disks of instances, copied as they are at one moment, whichever way their writers are kept still. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { isJsonObject, type JsonObject } from "../../core/json.ts";
import type { GuestDriver, GuestMemory, KeptMemory } from "../../drivers/driver.ts";
import type { CopyRequest } from "../../host/disks/planned-copies.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Snapshot } from "../../kinds/snapshot.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { copiersOf } from "./copiers.ts";
import { removeDisk } from "./remove-disk.ts";

/** The guest that uses the disks, if there is one. */
export interface Holder {
  driver: GuestDriver;
  handle: JsonObject;
  uid: Uid;
}

export function guestOf({ drivers }: AgentContext, instance: Instance | undefined): Holder | undefined {
  const { driver: name, handle } = instance?.status ?? {};
  if (!instance || name === undefined || handle === undefined || !isJsonObject(handle)) return undefined;
  const driver = drivers.find(name);
  return driver && { driver, handle, uid: instance.metadata.uid as Uid };
}

export type Consistency = NonNullable<Snapshot["status"]["consistency"]>;

/** A moment that disks are copied as of. */
export interface Moment {
  consistency: Consistency;
  /** How long writers were kept waiting. */
  stillMs: number;
  /** Not all is copied yet: what has the guest goes on with it, until `completeCopies`. */
  copying: boolean;
  /** Where memory was asked for. */
  memory?: KeptMemory;
}

/**
 * Copies disks of an instance as they are at one moment into `to`, and says how well that went. Nothing of an earlier
 * attempt is kept. Where a guest's disks do not share blocks, its driver copies them while it goes on.
 */
export async function copyAtOneMoment(
  context: AgentContext,
  instance: Instance | undefined,
  request: CopyRequest,
  to: Uid,
  signal: AbortSignal,
): Promise<Moment> {
  await removeDisk(context, { uid: to, of: undefined }, signal);
  const guest = guestOf(context, instance);
  const asked = request.volume === undefined && request.memoryBytes !== undefined;
  const begun = guest && (await beginCopies(context, guest, request, to, signal));
  if (begun) return begun;
  const moment = await copyStill(context, guest, request, to, signal);
  if (!asked) return moment;
  const able = guest === undefined || memoryOf(guest.driver) !== undefined;
  const missing = able ? "the instance did not run" : "its driver cannot keep memory";
  return { ...moment, memory: { missing } };
}

/** Where disks are copied here, whoever has them being kept still. */
async function copyStill(
  context: AgentContext,
  guest: Holder | undefined,
  request: CopyRequest,
  to: Uid,
  signal: AbortSignal,
): Promise<Moment> {
  const snapshots = guest?.driver.snapshots;
  if (!guest || snapshots?.keptStillBy !== "driver") {
    const { frozen, stillMs } = await copyHere(context, request, to, signal);
    return { consistency: frozen ? "frozen" : "unused", stillMs, copying: false };
  }
  const copy = () => copyHere(context, request, to, signal);
  const { guest: kept, result } = await snapshots.whileStill(guest.handle, copy, signal);
  const how = kept === "idle" ? (result.frozen ? "frozen" : "unused") : kept === "frozen" ? kept : "crash";
  return { consistency: how, stillMs: result.stillMs, copying: false };
}

/**
 * Waits until what is being copied is there. May be repeated until `forgetCopies`, which is for when that was recorded.
 * @throws Unavailable when it was cut off.
 */
export async function completeCopies(
  context: AgentContext,
  request: CopyRequest,
  to: Uid,
  signal: AbortSignal,
): Promise<void> {
  for (const copies of copiersOf(context)) {
    if (await copies.complete(to, signal)) return context.disks.finishCopies(request, to, signal);
  }
  throw new StrataError("Unavailable", "its disks were not copied to the end: nobody copies them any more");
}

export function rootVolumeOf(
  { views }: Pick<AgentContext, "views">,
  { metadata }: Instance,
): Volume | undefined {
  const [key] = views.volumesByOwner.keysOf(metadata.uid);
  return key === undefined ? undefined : views.volumes.get(key);
}

/** Uid of its root volume. @throws Unavailable before that is known. */
export function rootOf(context: AgentContext, instance: Instance): string {
  const root = rootVolumeOf(context, instance);
  if (root) return root.metadata.uid;
  throw new StrataError("Unavailable", "the instance's root volume is not known yet");
}

/** Of drivers whose guests can go on where they were. */
export function memoryOf({ snapshots }: GuestDriver): GuestMemory<JsonObject> | undefined {
  return snapshots?.keptStillBy === "driver" ? snapshots.copies?.memory : undefined;
}

/** Undefined, with nothing begun, where disks are to be copied here. */
async function beginCopies(
  { disks }: AgentContext,
  { driver, handle }: Holder,
  request: CopyRequest,
  to: Uid,
  signal: AbortSignal,
): Promise<Moment | undefined> {
  const copies = driver.snapshots?.keptStillBy === "driver" ? driver.snapshots.copies : undefined;
  if (!copies) return undefined;
  const planned = await disks.planCopies(request, to, signal);
  const shared = planned.filter(({ shares }) => shares);
  const memory = request.volume === undefined && request.memoryBytes !== undefined && copies.memory;
  if (shared.length === planned.length && !memory) return undefined;
  const begun = await copies.begin(
    handle,
    {
      id: to,
      disks: planned.filter(({ shares }) => !shares),
      meanwhile: (others, inTime) => disks.copyPlanned([...shared, ...others], inTime),
      ...(memory && { memory: { to: await disks.memoryFile(to) } }),
    },
    signal,
  );
  if (begun.guest === "idle") return undefined;
  const consistency = begun.guest === "frozen" ? "frozen" : "crash";
  const kept = begun.memory && { memory: begun.memory };
  return { consistency, stillMs: begun.stillMs, copying: true, ...kept };
}

async function copyHere(
  { disks, clock }: AgentContext,
  request: CopyRequest,
  to: Uid,
  signal: AbortSignal,
): Promise<{ frozen: boolean; stillMs: number }> {
  const begun = clock.monotonicMs();
  const stood =
    request.volume === undefined
      ? await disks.copyTogether(request.disks, to, signal)
      : await disks.copyData(request.volume, to, signal, request.pool);
  // What was not mounted here was kept still by whoever has it, for all of this.
  return stood.frozen ? stood : { frozen: false, stillMs: Math.round(clock.monotonicMs() - begun) };
}
