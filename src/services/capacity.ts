import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { formatMib } from "../core/units.ts";
import { type Host, hostKind } from "../kinds/host.ts";
import type { InstanceSpec } from "../kinds/instance.ts";
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
  async check(world: World, spec: InstanceSpec, action: string): Promise<void> {
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
