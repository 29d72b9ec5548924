/**
 * Watches the space that volumes of running containers are in, and lets their writers wait while there is too little of
 * it (space-rule.ts says when). Virtual machines need nobody's watch: QEMU stops them at the write that finds no space.
 */
import { BoundedCalls } from "../../core/bounded-calls.ts";
import { describeError } from "../../core/errors.ts";
import { judgeSpace, looksMs, type Space } from "../../host/disks/space-rule.ts";
import type { VolumeRoom } from "../../host/disks/write-holds.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { siblingKey } from "../views.ts";

/** For a place to say how full it is. */
const answerMs = 2_000;

/** Volumes whose writers wait, by uid, for whoever reports on them. */
export class WaitingWriters {
  readonly #uids = new Set<string>();
  readonly #listeners: ((uid: string) => void)[] = [];

  has(uid: string): boolean {
    return this.#uids.has(uid);
  }

  list(): string[] {
    return [...this.#uids];
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
  const guard = new SpaceGuard(context);
  let failing = false;
  while (!signal.aborted) {
    let againMs: number | undefined = looksMs.most;
    try {
      againMs = await guard.look();
      failing = false;
    } catch (error) {
      if (!failing && !signal.aborted) {
        logger.warn({ error: describeError(error) }, "watching the space of volumes failed; it goes on");
      }
      failing = true;
    }
    await guard.rest(againMs);
  }
}

class SpaceGuard {
  readonly #context: AgentContext;
  /** Volumes that are being held or let go: one that is just copied may take long, and others do not wait for it. */
  readonly #pending = new Set<string>();
  readonly #calls: BoundedCalls;
  #changed = false;
  #wake = () => {};

  constructor(context: AgentContext) {
    this.#context = context;
    const { views, signal, clock } = context;
    this.#calls = new BoundedCalls(clock, answerMs);
    const changed = () => this.#change();
    views.volumes.onChange(changed);
    views.instances.onChange(changed);
    signal.addEventListener("abort", changed, { once: true });
  }

  /** For so long, or for ever; no longer than until something becomes of a volume or of an instance. */
  async rest(ms: number | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = ms === undefined ? () => {} : this.#context.clock.after(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
      if (this.#changed) this.#wake();
    });
    this.#changed = false;
  }

  /** At every place. Returns when the next look is due; undefined when there is nothing to look at. */
  async look(): Promise<number | undefined> {
    const { disks, waiting } = this.#context;
    const held = new Set(await disks.held());
    for (const uid of held) waiting.set(uid, true);
    // Whoever was let go by what unmounts it is told so here.
    for (const uid of waiting.list()) if (!held.has(uid) && !this.#pending.has(uid)) waiting.set(uid, false);
    const written = writtenVolumes(this.#context);
    if (written.length === 0 && held.size === 0) return undefined;
    const { places, silent } = await this.#lookAt(written);
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
    for (const uid of hold) if (!held.has(uid)) this.#begin(uid, true);
    for (const uid of held) if (!hold.has(uid) && !silent.has(uid)) this.#begin(uid, false);
    return againMs;
  }

  /** A place that does not answer keeps nobody from the others; nothing becomes of its volumes this time. */
  async #lookAt(volumes: readonly Volume[]) {
    const places = new Map<number, { space: Space; uids: string[] }>();
    const silent = new Set<string>();
    const byPool = Map.groupBy(volumes, ({ status }) => status.pool ?? "");
    await Promise.all(
      [...byPool].map(async ([pool, inside]) => {
        const uids = inside.map(({ metadata }) => metadata.uid);
        const found = await this.#calls.ask(pool, () => this.#roomsOf(uids));
        if (!found) for (const uid of uids) silent.add(uid);
        for (const { uid, room } of found?.answer ?? []) if (room) addTo(places, uid, room);
      }),
    );
    return { places, silent };
  }

  /** One first: calls that are never answered take threads from all others, and one shows as much as many. */
  async #roomsOf([first, ...others]: readonly string[]) {
    if (first === undefined) return [];
    const roomOf = async (uid: string) => ({ uid, room: await this.#context.disks.room(uid).catch(absent) });
    return [await roomOf(first), ...(await Promise.all(others.map(roomOf)))];
  }

  #begin(uid: string, wait: boolean): void {
    if (this.#pending.has(uid)) return;
    this.#pending.add(uid);
    void this.#set(uid, wait).finally(() => this.#pending.delete(uid));
  }

  async #set(uid: string, wait: boolean): Promise<void> {
    const { disks, waiting, signal, logger } = this.#context;
    try {
      await (wait ? disks.hold(uid, signal) : disks.letGo(uid));
      waiting.set(uid, (await disks.held()).includes(uid));
      logger.warn({ volume: uid }, wait ? "writers wait for space" : "writers go on");
    } catch (error) {
      if (signal.aborted) return;
      logger.error({ volume: uid, error: describeError(error) }, "writers cannot be held or let go");
    }
  }

  #change(): void {
    this.#changed = true;
    this.#wake();
  }
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
    const { spec, status } = volume;
    if (spec.role !== "data" || spec.allocation === "full" || status.host !== hostName) return false;
    if (status.instance === undefined) return false;
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
