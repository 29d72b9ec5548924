/**
 * Watches the space that volumes of running containers are in, and lets their writers wait while there is too little of
 * it (space-rule.ts says when). Virtual machines need nobody's watch: QEMU stops them at the write that finds no space.
 */
import { describeError } from "../../core/errors.ts";
import { judgeSpace, looksMs, type Space } from "../../host/disks/space-rule.ts";
import type { VolumeRoom } from "../../host/disks/write-holds.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { siblingKey } from "../views.ts";

/** Volumes whose writers wait, by uid, for whoever reports on them. */
export class WaitingWriters {
  readonly #uids = new Set<string>();
  readonly #listeners: ((uid: string) => void)[] = [];

  has(uid: string): boolean {
    return this.#uids.has(uid);
  }

  onChange(listener: (uid: string) => void): void {
    this.#listeners.push(listener);
  }

  set(uid: string, waits: boolean): void {
    if (this.#uids.has(uid) === waits) return;
    if (waits) this.#uids.add(uid);
    else this.#uids.delete(uid);
    for (const listener of this.#listeners) listener(uid);
  }
}

/** Until the signal aborts. Writers that wait then go on waiting: their space is as little as before. */
export async function runSpaceGuard(context: AgentContext): Promise<void> {
  const { signal, logger } = context;
  const rest = restUntilChange(context);
  let failing = false;
  while (!signal.aborted) {
    let againMs: number | undefined = looksMs.most;
    try {
      againMs = await guardOnce(context);
      failing = false;
    } catch (error) {
      if (!failing && !signal.aborted) {
        logger.warn({ error: describeError(error) }, "watching the space of volumes failed; it goes on");
      }
      failing = true;
    }
    await rest(againMs);
  }
}

/** Rests for so long, or for ever, but no longer than until something becomes of a volume or of an instance. */
function restUntilChange({ views, clock, signal }: AgentContext): (ms: number | undefined) => Promise<void> {
  let wake = () => {};
  let changed = false;
  const onChange = () => {
    changed = true;
    wake();
  };
  views.volumes.onChange(onChange);
  views.instances.onChange(onChange);
  signal.addEventListener("abort", onChange, { once: true });
  return async (ms) => {
    await new Promise<void>((resolve) => {
      const cancel = ms === undefined ? () => {} : clock.after(ms, resolve);
      wake = () => {
        cancel();
        resolve();
      };
      if (changed) wake();
    });
    changed = false;
  };
}

/** One look at every place. Returns when the next is due; undefined when there is nothing to look at. */
async function guardOnce(context: AgentContext): Promise<number | undefined> {
  const { disks, waiting, signal, logger } = context;
  const held = new Set(await disks.held());
  for (const uid of held) waiting.set(uid, true);
  const places = new Map<number, { space: Space; uids: string[] }>();
  const written = writtenVolumes(context);
  if (written.length === 0 && held.size === 0) return undefined;
  const rooms = await Promise.all(
    written.map(
      async ({ metadata }) => [metadata.uid, await disks.room(metadata.uid).catch(absent)] as const,
    ),
  );
  for (const [uid, room] of rooms) if (room) addTo(places, uid, room);
  const hold = new Set<string>();
  let againMs: number = looksMs.most;
  for (const { space, uids } of places.values()) {
    const judged = judgeSpace(
      space,
      uids.some((uid) => held.has(uid)),
    );
    againMs = Math.min(againMs, judged.lookAgainMs);
    if (judged.hold) for (const uid of uids) hold.add(uid);
  }
  const changes = [
    ...[...hold].filter((uid) => !held.has(uid)).map((uid) => disks.hold(uid, signal)),
    ...[...held].filter((uid) => !hold.has(uid)).map((uid) => disks.letGo(uid)),
  ];
  if (changes.length === 0) return againMs;
  const failed = (await Promise.allSettled(changes)).find((result) => result.status === "rejected");
  const now = new Set(await disks.held());
  for (const uid of new Set([...held, ...now])) waiting.set(uid, now.has(uid));
  logger.warn({ waiting: [...now] }, "writers to volumes wait for space, or go on");
  if (failed) throw failed.reason;
  return againMs;
}

function addTo(places: Map<number, { space: Space; uids: string[] }>, uid: string, room: VolumeRoom): void {
  const { place, capacityBytes, freeBytes, mayTakeBytes } = room;
  const known = places.get(place);
  if (!known) {
    const space = { capacityBytes, freeBytes, mayTakeBytes, volumes: 1 };
    places.set(place, { space, uids: [uid] });
    return;
  }
  known.space.volumes++;
  known.space.mayTakeBytes += mayTakeBytes;
  known.uids.push(uid);
}

/**
 * What containers that run, and are to go on running, have mounted: a writer that waits cannot be ended, so nothing of a
 * container that is on its way out is held. What takes all of its space at once never lacks any.
 */
function writtenVolumes({ views, hostName }: Pick<AgentContext, "views" | "hostName">): Volume[] {
  return [...views.volumes.values()].filter((volume) => {
    const { spec, status, metadata } = volume;
    if (spec.role !== "data" || spec.allocation === "full" || status.host !== hostName) return false;
    if (status.instance === undefined || status.instance !== spec.instance) return false;
    if (metadata.deletedAt !== undefined) return false;
    const holder = views.instances.get(siblingKey(instanceKind, volume, status.instance));
    return (
      holder?.spec.type === "container" &&
      holder.spec.power === "running" &&
      holder.metadata.deletedAt === undefined &&
      holder.status.state === "running" &&
      holder.spec.restarts <= holder.status.observedRestarts
    );
  });
}

/** It may have gone meanwhile, and what is not there is not written to. */
function absent(): undefined {
  return undefined;
}
