/**
 * Volumes that users created: given to the guests of this host and taken back while they run, grown, and removed. A guest
 * that starts gets all its volumes at once (instances/execute.ts).
 */
import { StrataError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { Uid } from "../../core/ids.ts";
import { isJsonObject, type JsonObject } from "../../core/json.ts";
import type { Instance } from "../../kinds/instance.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { type Volume, type VolumeStatus, volumeKind } from "../../kinds/volume.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { restoreInto } from "../backups/restore.ts";
import type { NewEvent } from "../event-recorder.ts";
import { reportStatus } from "../report.ts";
import { instanceKeyOf, siblingKey } from "../views.ts";
import {
  type AttachmentAction,
  type AttachmentWorld,
  type FromBackup,
  freedStatus,
  placeIn,
  planAttachment,
  type VolumeHolder,
} from "./attachment-plan.ts";
import { guestVolume, poolFor } from "./guest-volumes.ts";
import { lostHelp, removeDisk } from "./remove-disk.ts";

export function createAttachmentReconciler(
  context: AgentContext,
): Reconciler<AttachmentWorld, AttachmentAction, VolumeStatus> {
  return new AttachmentReconciler(context);
}

class AttachmentReconciler implements Reconciler<AttachmentWorld, AttachmentAction, VolumeStatus> {
  readonly name = "attachments";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  /** Something became of an instance that has it or wants it. */
  readonly #related = new Hints();
  readonly #finalized = new Set<string>();

  constructor(context: AgentContext) {
    this.#context = context;
    const { views } = context;
    this.watches = [
      { name: "volumes", urgent: true, keys: (signal) => views.volumes.watchKeys(signal) },
      { name: "instances", urgent: true, keys: (signal) => this.#related.keys(signal) },
    ];
    views.instances.onChange((key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        context.guestVolumes.forget(previous.metadata.uid);
      if (next && previous && next.status.state === previous.status.state) return;
      for (const volume of views.volumesByPlug.keysOf(key)) this.#related.hint(volume);
      for (const volume of views.volumesByWish.keysOf(key)) this.#related.hint(volume);
    });
    context.waiting.onChange((uid) => {
      const volume = views.volumes.byUid(uid);
      if (!volume) return;
      this.#related.hint(views.volumes.keyOf(volume));
      // A root is its instance's, for whoever reads of it.
      const instance = views.instances.byUid(volume.metadata.owner?.uid ?? "");
      context.events.record(instance ?? volume, writersEvent(volume, context.waiting.has(uid)));
    });
    views.volumes.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        this.#finalized.delete(previous.metadata.uid);
    });
  }

  async observe(key: string): Promise<AttachmentWorld> {
    const { views, hostName } = this.#context;
    const found = views.volumes.get(key);
    const volume =
      found?.spec.role === "data" && !this.#finalized.has(found.metadata.uid) ? found : undefined;
    const wish = volume && instanceKeyOf(volume);
    const holds = volume?.status.instance;
    const holder =
      volume && holds !== undefined
        ? views.instances.get(siblingKey(instanceKind, volume, holds))
        : undefined;
    return {
      hostName,
      volume,
      wanted: wish === undefined ? undefined : views.instances.get(wish),
      current: volume && holder && (await this.#observeHolder(volume, holder)),
      source: volume && this.#sourceOf(volume),
      waiting: volume !== undefined && this.#context.waiting.has(volume.metadata.uid),
    };
  }

  plan(world: AttachmentWorld) {
    return planAttachment(world);
  }

  async execute(action: AttachmentAction, signal: AbortSignal): Promise<void> {
    const { client, views, disks, drivers, guestVolumes, hostName } = this.#context;
    const { volume } = action;
    const { metadata } = volume;
    switch (action.type) {
      case "claim": {
        const current = views.volumes.byUid(metadata.uid);
        if (!current || current.status.instance !== undefined) return;
        const { name } = action.instance.metadata;
        const message = `is attached to the instance "${name}"`;
        return this.#report(
          current,
          { ...current.status, state: "attaching", message, host: hostName, instance: name },
          signal,
        );
      }
      case "copy": {
        await disks.copyData(action.from, metadata.uid, signal, poolFor(this.#context, volume.status.pool));
        const current = views.volumes.byUid(metadata.uid);
        if (current) await this.#report(current, freedStatus(current), signal);
        return;
      }
      case "restore":
        return this.#restore(volume, action.from, signal);
      case "plug":
        return this.#plug(action, signal);
      case "unplug": {
        const { instance, driver, handle } = action;
        await drivers.require(driver).volumes?.detach(handle, { id: metadata.uid as Uid }, signal);
        guestVolumes.unplugged(instance.metadata.uid, metadata.uid);
        return;
      }
      case "release": {
        await disks.releaseData(metadata.uid, signal);
        const current = views.volumes.byUid(metadata.uid);
        if (current) await this.#report(current, freedStatus(current), signal);
        return;
      }
      case "remove-disk":
        return removeDisk(this.#context, { uid: metadata.uid, of: volume }, signal);
      case "finalize":
        await client.removeFinalizer(volumeKind, metadata as Ref, metadata.uid, "agent", { signal });
        this.#finalized.add(metadata.uid);
    }
  }

  async report(_key: string, { volume }: AttachmentWorld, status: VolumeStatus, signal: AbortSignal) {
    if (volume) await this.#report(volume, status, signal);
  }

  async failed(key: string, failure: Failure<AttachmentWorld>, signal: AbortSignal): Promise<void> {
    const volume = this.#context.views.volumes.get(key);
    if (volume?.spec.role !== "data" || volume.status.host !== this.#context.hostName) return;
    const error = toStrataError(failure.error, `work on volume "${volume.metadata.name}"`);
    const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
    const help = lostHelp(this.#context, volume, [volume.status.pool]);
    const message = `${error.message.slice(0, 700)}; trying again in ${seconds} s${help}`;
    await this.#report(volume, { ...volume.status, message }, signal);
  }

  /** Told only when it is so, in one write with where it is found. */
  async #plug(
    { volume, instance, driver, handle }: Extract<AttachmentAction, { type: "plug" }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { drivers, guestVolumes, views } = this.#context;
    if (this.#context.rollbacks.has(volume.metadata.uid)) {
      throw new StrataError("Unavailable", "it is just being put back to a snapshot");
    }
    const subject = drivers.require(driver);
    const prepared = await guestVolume(this.#context, subject, { volume, instance }, signal);
    await subject.volumes?.attach(handle, prepared, signal);
    const { sizeMib } = volume.spec;
    guestVolumes.plugged(instance.metadata.uid, volume.metadata.uid, sizeMib);
    const current = views.volumes.byUid(volume.metadata.uid);
    if (!current || current.status.instance !== instance.metadata.name) return;
    const device = placeIn(volume, instance.spec.type);
    const observedGeneration = volume.metadata.generation;
    const status = { state: "attached" as const, message: "", device, sizeMib, observedGeneration };
    await this.#report(current, { ...current.status, ...status }, signal);
  }

  async #report(volume: Volume, status: VolumeStatus, signal: AbortSignal): Promise<void> {
    const { client, views } = this.#context;
    await reportStatus(client, volumeKind, views.volumes, volume, status, signal);
  }

  #sourceOf({ spec, metadata }: Volume): AttachmentWorld["source"] {
    if (spec.source === undefined) return undefined;
    const { snapshot: name = "", volume, backup: of } = spec.source;
    const { project = "" } = metadata;
    if (of !== undefined) {
      const backup = this.#context.views.backups.find({ project, name: of });
      return backup && { backup, volume };
    }
    const snapshot = this.#context.views.snapshots.find({ project, name });
    if (!snapshot || volume === undefined) return snapshot?.metadata.uid;
    const part = snapshot.status.volumes?.find((one) => one.name === volume);
    return part && { snapshot: snapshot.metadata.uid, disk: part.uid };
  }

  async #restore(volume: Volume, from: FromBackup, signal: AbortSignal): Promise<void> {
    const { disks, views } = this.#context;
    const { uid } = volume.metadata;
    const told = async (message: string) => {
      const current = views.volumes.byUid(uid);
      if (current) await this.#report(current, { ...current.status, message }, signal);
    };
    const request = {
      ...{ uid, sizeMib: volume.spec.sizeMib, allocation: volume.spec.allocation },
      pool: poolFor(this.#context, volume.status.pool),
    };
    await disks.fillData(request, (path) => restoreInto(this.#context, from, path, told, signal), signal);
    const current = views.volumes.byUid(uid);
    if (current) await this.#report(current, freedStatus(current), signal);
  }

  async #observeHolder(volume: Volume, instance: Instance): Promise<VolumeHolder> {
    const { drivers, guestCards, guestVolumes } = this.#context;
    const { uid } = instance.metadata;
    const sizeMib = guestVolumes.sizeMib(uid, volume.metadata.uid);
    const { driver: name, handle } = instance.status;
    if (guestCards.isStarting(uid)) return { instance, guest: "starting", sizeMib, reach: undefined };
    if (name === undefined || !isHandle(handle))
      return { instance, guest: "idle", sizeMib, reach: undefined };
    const driver = drivers.require(name);
    const observed = await driver.inspect(uid as Uid);
    const running = observed?.state === "running";
    return {
      instance,
      // It may have begun to start meanwhile.
      guest: guestCards.isStarting(uid) ? "starting" : running ? "running" : "idle",
      sizeMib,
      reach: { driver: name, handle: observed?.handle ?? handle, canPlug: driver.volumes !== undefined },
    };
  }
}

function writersEvent({ status }: Volume, waits: boolean): NewEvent {
  const where = status.pool === undefined ? "its host" : `storage pool "${status.pool}"`;
  return waits
    ? { severity: "warning", reason: "WritersWait", message: `writers wait: ${where} has no space left` }
    : { severity: "normal", reason: "WritersGoOn", message: `writers go on: ${where} has space again` };
}

function isHandle(value: unknown): value is JsonObject {
  return isJsonObject(value as never);
}
