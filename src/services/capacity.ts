import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { formatMib } from "../core/units.ts";
import { type Host, hostKind } from "../kinds/host.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { promisesKey, type Ref, resourceKey } from "../kinds/keys.ts";
import type { Write } from "../store/store.ts";
import type { World } from "./hooks.ts";

/** How long the list of hosts is trusted; other processes may change it meanwhile. */
const trustedForMs = 1000;

interface Room {
  cpus: number;
  memoryMib: number;
  diskMib: number;
}

/**
 * Refuses at once what could never be placed: an instance larger than every ready host. Whether there is room right
 * now is for placement to find; without a ready host there is nothing to compare with.
 */
export class Capacity {
  readonly #clock: Clock;
  #rooms: Promise<readonly Room[]> | undefined;
  #readAt = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A host was written: read them anew. */
  invalidate(): void {
    this.#rooms = undefined;
  }

  /** @throws CapacityExceeded saying what was asked for and what the largest host has. */
  async check(world: World, spec: Room, action: string): Promise<void> {
    const rooms = await this.#ready(world);
    const fits = (room: Room) =>
      spec.cpus <= room.cpus && spec.memoryMib <= room.memoryMib && spec.diskMib <= room.diskMib;
    if (rooms.length === 0 || rooms.some(fits)) return;
    const most = (name: keyof Room) => Math.max(...rooms.map((room) => room[name]));
    const reasons: string[] = [];
    if (spec.memoryMib > most("memoryMib")) {
      reasons.push(
        `asks for ${formatMib(spec.memoryMib)} of memory; the largest host has ${formatMib(most("memoryMib"))}`,
      );
    }
    if (spec.diskMib > most("diskMib")) {
      reasons.push(
        `asks for ${formatMib(spec.diskMib)} of disk; the largest host has ${formatMib(most("diskMib"))}`,
      );
    }
    if (spec.cpus > most("cpus")) {
      reasons.push(`asks for ${spec.cpus} CPUs; the largest host may promise ${most("cpus")}`);
    }
    if (reasons.length === 0) reasons.push("no single host has that much memory, disk and CPUs together");
    throw new StrataError(
      "CapacityExceeded",
      `cannot ${action}: it ${reasons.join(", and it ")}; ask for less, or add a larger host`,
    );
  }

  /**
   * May an instance become as large as `next`? One that has a host grows there or not at all. Of two that grow on one
   * host at once, or one that grows and one that is placed there, only one commits.
   * @throws CapacityExceeded
   */
  async checkResize(world: World, next: Instance, previous: Instance, action: string): Promise<Write[]> {
    const { host: name } = previous.status;
    if (name === undefined) {
      await this.check(world, next.spec, action);
      return [];
    }
    const more = {
      cpus: next.spec.cpus - previous.spec.cpus,
      memoryMib: next.spec.memoryMib - previous.spec.memoryMib,
    };
    if (more.cpus <= 0 && more.memoryMib <= 0) return [];
    const key = promisesKey(name);
    const guard = await world.store.get(key);
    const host = await world.find(hostKind, { name });
    if (!host) return [];
    const room = roomOf(host);
    const free = { cpus: room.cpus, memoryMib: room.memoryMib };
    for await (const { spec, status } of world.scan(instanceKind, undefined)) {
      if (status.host !== name) continue;
      free.cpus -= spec.cpus;
      free.memoryMib -= spec.memoryMib;
    }
    const reasons: string[] = [];
    if (more.memoryMib > Math.max(0, free.memoryMib)) {
      reasons.push(
        `asks for ${formatMib(more.memoryMib)} more memory; its host has ${formatMib(Math.max(0, free.memoryMib))} left`,
      );
    }
    if (more.cpus > Math.max(0, free.cpus)) {
      reasons.push(`asks for ${more.cpus} more CPUs; its host has ${Math.max(0, free.cpus)} left to promise`);
    }
    if (reasons.length > 0) {
      throw new StrataError(
        "CapacityExceeded",
        `cannot ${action}: it ${reasons.join(", and it ")}; ask for less, or make room on the host`,
      );
    }
    const to = resourceKey(instanceKind, next.metadata as Ref);
    return [{ put: key, value: { to }, ifRevision: guard?.revision ?? 0 }];
  }

  #ready(world: World): Promise<readonly Room[]> {
    const now = this.#clock.monotonicMs();
    if (this.#rooms && now - this.#readAt < trustedForMs) return this.#rooms;
    this.#readAt = now;
    const reading = readRooms(world);
    this.#rooms = reading;
    reading.catch(() => {
      if (this.#rooms === reading) this.#rooms = undefined;
    });
    return reading;
  }
}

async function readRooms(world: World): Promise<readonly Room[]> {
  const rooms: Room[] = [];
  for await (const host of world.scan(hostKind, undefined)) {
    if (host.status.state === "ready") rooms.push(roomOf(host));
  }
  return rooms;
}

function roomOf(host: Host): Room {
  const { cpus, memoryMib, diskMib } = host.status.allocatable;
  return { cpus: Math.floor(cpus * host.spec.cpuOvercommit), memoryMib, diskMib };
}
