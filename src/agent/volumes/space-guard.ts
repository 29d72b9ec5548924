/**
 * Watches the space that roots and volumes of running containers are in, and lets their writers wait while there is too little of
 * it (space-rule.ts says when). Virtual machines need nobody's watch: QEMU stops them at the write that finds no space.
 */
import { BoundedCalls } from "../../core/bounded-calls.ts";
import { describeError } from "../../core/errors.ts";
import { judgeSpace, looksMs, type Space } from "../../host/disks/space-rule.ts";
import type { VolumeRoom } from "../../host/disks/write-holds.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { AgentContext } from "../agent-context.ts";
import { siblingKey } from "../views.ts";
import { rootVolumeOf } from "./moments.ts";

/** What becomes of many instances and volumes at once is looked at once. */
const changesMs = 50;
/** For a place to say how full it is. */
const answerMs = 2_000;

/** A disk that is mounted and may be written to. */
interface Written {
  uid: string;
  /** Name of the storage pool; empty: the daemon's own directory. Disks with the same one share their space. */
  pool: string;
}

/** Volumes and roots whose writers wait, by uid, for whoever reports on them. */
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
  /** As of the last change of a volume or an instance; undefined when there was one since. */
  #written: readonly Written[] | undefined;
  #changed = false;
  #wake: () => void = () => {};
  #soon: () => void = () => {};
  #stop: () => void = () => {};

  constructor(context: AgentContext) {
    this.#context = context;
    const { views, signal, clock } = context;
    this.#calls = new BoundedCalls(clock, answerMs);
    const changed = () => this.#change();
    views.volumes.onChange(changed);
    views.instances.onChange(changed);
    signal.addEventListener("abort", () => this.#wake(), { once: true });
  }

  /** For so long, or for ever; no longer than until something becomes of a volume or of an instance. */
  async rest(ms: number | undefined): Promise<void> {
    const { clock, signal } = this.#context;
    await new Promise<void>((resolve) => {
      const timers = ms === undefined ? [] : [clock.after(ms, resolve)];
      this.#soon = () => timers.push(clock.after(changesMs, resolve));
      this.#wake = resolve;
      if (this.#changed) this.#soon();
      if (signal.aborted) resolve();
      this.#stop = () => {
        for (const cancel of timers) cancel();
      };
    });
    this.#stop();
    this.#soon = () => {};
    this.#changed = false;
  }

  /** At every place. Returns when the next look is due; undefined when there is nothing to look at. */
  async look(): Promise<number | undefined> {
    const { disks, waiting } = this.#context;
    const held = new Set(await disks.held());
    for (const uid of held) waiting.set(uid, true);
    // Whoever was let go by what unmounts it is told so here.
    for (const uid of waiting.list()) if (!held.has(uid) && !this.#pending.has(uid)) waiting.set(uid, false);
    this.#written ??= writtenDisks(this.#context);
    const written = this.#written;
    if (written.length === 0 && held.size === 0) return undefined;
    const { places, silent } = await this.#lookAt(written, held);
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

  /** A place that does not answer keeps nobody from the others; nothing becomes of its disks this time. */
  async #lookAt(disks: readonly Written[], held: ReadonlySet<string>) {
    const places = new Map<number, { space: Space; uids: string[] }>();
    const silent = new Set<string>();
    const byPool = Map.groupBy(disks, ({ pool }) => pool);
    await Promise.all(
      [...byPool].map(async ([pool, inside]) => {
        const uids = inside.map(({ uid }) => uid);
        const anyHeld = uids.some((uid) => held.has(uid));
        const found = await this.#calls.ask(pool, () => this.#roomsOf(uids, anyHeld));
        if (!found) for (const uid of uids) silent.add(uid);
        for (const { uid, room } of found?.answer ?? []) if (room) addTo(places, uid, room);
      }),
    );
    return { places, silent };
  }

  /**
   * One first: calls that are never answered take threads from all others, and one shows as much as many. Where it shows that
   * nothing can lack space before the next look, whatever all of them write, the others are not asked.
   */
  async #roomsOf([first, ...others]: readonly string[], anyHeld: boolean) {
    if (first === undefined) return [];
    const roomOf = async (uid: string) => ({ uid, room: await this.#context.disks.room(uid).catch(absent) });
    const shown = await roomOf(first);
    if (shown.room && !anyHeld) {
      const worst = { ...shown.room, volumes: others.length + 1, mayTakeBytes: Number.POSITIVE_INFINITY };
      if (judgeSpace(worst, false).lookAgainMs === looksMs.most) return [shown];
    }
    return [shown, ...(await Promise.all(others.map(roomOf)))];
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
    this.#written = undefined;
    if (this.#changed) return;
    this.#changed = true;
    this.#soon();
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
 * container that is on its way out is held. What takes all of its space at once never lacks any. Roots that an engine keeps
 * are its own.
 */
function writtenDisks(context: Pick<AgentContext, "views" | "hostName" | "drivers">): Written[] {
  const { views, hostName, drivers } = context;
  const volumes = [...views.volumes.values()].flatMap((volume) => {
    const { spec, status, metadata } = volume;
    if (spec.role !== "data" || spec.allocation === "full" || status.host !== hostName) return [];
    if (status.instance === undefined) return [];
    const holder = views.instances.get(siblingKey(instanceKind, volume, status.instance));
    return holder && goesOn(holder) ? [{ uid: metadata.uid, pool: status.pool ?? "" }] : [];
  });
  const roots = [...views.instances.values()].flatMap((instance) => {
    if (!goesOn(instance) || drivers.find(instance.status.driver ?? "")?.volumes?.takes !== "mount")
      return [];
    const root = rootVolumeOf(context, instance);
    return root ? [{ uid: root.metadata.uid, pool: "" }] : [];
  });
  return [...volumes, ...roots];
}

function goesOn({ spec, status, metadata }: Instance): boolean {
  return (
    spec.type === "container" &&
    spec.power === "running" &&
    metadata.deletedAt === undefined &&
    status.state === "running" &&
    spec.restarts <= status.observedRestarts
  );
}

/** It may have gone meanwhile, and what is not there is not written to. */
function absent(): undefined {
  return undefined;
}
