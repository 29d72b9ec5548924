/** Disks of instances, copied as they are at one moment, whichever way their writers are kept still. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { isJsonObject, type JsonObject } from "../../core/json.ts";
import type { GuestDriver } from "../../drivers/driver.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Snapshot } from "../../kinds/snapshot.ts";
import type { AgentContext } from "../agent-context.ts";

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

/**
 * Runs `copy` while nothing is written to the disks of the instance, and says how well that went. `copy` keeps still what
 * the host has mounted, and says whether there was anything.
 */
export async function copyAtOneMoment(
  context: AgentContext,
  instance: Instance | undefined,
  copy: () => Promise<{ frozen: boolean }>,
  signal: AbortSignal,
): Promise<NonNullable<Snapshot["status"]["consistency"]>> {
  const guest = guestOf(context, instance);
  const snapshots = guest?.driver.snapshots;
  if (guest && snapshots?.keptStillBy === "driver") {
    const kept = await snapshots.whileStill(guest.handle, copy, signal);
    if (kept.guest === "idle") return kept.result.frozen ? "frozen" : "unused";
    return kept.guest === "frozen" ? "frozen" : "crash";
  }
  return (await copy()).frozen ? "frozen" : "unused";
}

/** Uid of its root volume. @throws Unavailable before that is known. */
export function rootOf({ views }: AgentContext, { metadata }: Instance): string {
  const [key] = views.volumesByOwner.keysOf(metadata.uid);
  const root = key === undefined ? undefined : views.volumes.get(key);
  if (root) return root.metadata.uid;
  throw new StrataError("Unavailable", "the instance's root volume is not known yet");
}
