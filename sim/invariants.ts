import { hostKind } from "../src/kinds/host.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { type NetworkInterface, networkInterfaceKind } from "../src/kinds/network-interface.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import type { Services } from "../src/services/services.ts";
import type { SimulatedHost } from "./simulated-host.ts";
import type { Users } from "./users.ts";

/** What must hold at every moment, faults or not. Breaches in the middle of things are noticed by hooks in the worlds. */
export class Invariants {
  readonly #services: Services;
  readonly #hosts: readonly SimulatedHost[];
  readonly #users: Users;
  /** Guests that were started so far. */
  starts = 0;
  readonly #breaches: string[] = [];
  /** Uid to the host it first ran on: an instance never changes hosts. */
  readonly #homes = new Map<string, string>();
  readonly #recorded = new Set<string>();

  constructor(services: Services, hosts: readonly SimulatedHost[], users: Users) {
    this.#services = services;
    this.#hosts = hosts;
    this.#users = users;
    for (const host of hosts) {
      this.#watchWorld(host);
      this.#watchPolicies(host);
    }
  }

  /** @throws Error naming what does not hold. */
  async check(): Promise<void> {
    const instances = await this.#instances();
    await this.#checkMemory(instances);
    this.#checkAddresses();
    this.#checkCards(instances);
    this.#checkPublished();
    await this.#checkInterfaces(instances);
    for (const { metadata, status } of instances) {
      if (status.handle !== undefined) this.#recorded.add(metadata.uid);
    }
    if (this.#breaches.length > 0) throw new Error(this.#breaches.join("; "));
  }

  /** The run of each running guest. */
  runs(): Map<string, string> {
    const runs = new Map<string, string>();
    for (const { machine } of this.#hosts) {
      for (const [uid, guest] of machine.world.guests) {
        if (guest.state === "running") runs.set(uid, guest.runId ?? "");
      }
    }
    return runs;
  }

  checkSameRuns(before: ReadonlyMap<string, string>): void {
    const now = this.runs();
    for (const [uid, run] of before) {
      if (now.get(uid) !== run)
        throw new Error(`guest ${uid} was restarted at rest: ${run}, ${now.get(uid)}`);
    }
  }

  #watchWorld(host: SimulatedHost): void {
    const { name, machine } = host;
    const { world } = machine;
    const run = world.run.bind(world);
    world.run = (uid) => {
      if (world.guests.get(uid)?.state !== "running") this.#checkStart(uid, host);
      run(uid);
    };
    const end = world.end.bind(world);
    world.end = (uid, reason, message) => {
      const undisturbed = !this.#users.disturbed.has(uid);
      if (reason === "requested" && undisturbed && world.guests.get(uid)?.state === "running") {
        this.#breaches.push(`guest ${uid} on ${name} was stopped, and nobody wanted that`);
      }
      end(uid, reason, message);
    };
    const remove = world.remove.bind(world);
    world.remove = (uid) => {
      if (!this.#users.disturbed.has(uid) && world.guests.has(uid)) {
        this.#breaches.push(`guest ${uid} on ${name} was removed, and nobody wanted that`);
      }
      remove(uid);
    };
  }

  /** An address in force twice in one network would lead to one of two guests. */
  #watchPolicies({ name, machine }: SimulatedHost): void {
    machine.onPolicy = (network, { cards }) => {
      const seen = new Map<string, string>();
      for (const { uid, ipAddress, ipv6Address = uid, macAddress, port } of cards) {
        for (const address of [ipAddress, ipv6Address, macAddress, port]) {
          const other = seen.get(address);
          if (other !== undefined) {
            this.#breaches.push(
              `cards ${uid} and ${other} of network ${network} on ${name} share ${address}`,
            );
          }
          seen.set(address, uid);
        }
      }
    };
  }

  /** Without its card in force, a guest that starts could say that it is somebody else. */
  #checkCardsOf(uid: string, { name, machine }: SimulatedHost): void {
    const inForce = new Set(
      machine.cards().map(({ network, card }) => cardText(`/run/netns/${network}`, card)),
    );
    for (const nic of machine.world.guests.get(uid as never)?.spec.nics ?? []) {
      // A network that is being mended lets nobody through.
      if (machine.broken.has(nic.netns.slice("/run/netns/".length))) continue;
      const text = cardText(nic.netns, { ...nic, ipv6Address: nic.ipv6?.address });
      if (!inForce.has(text))
        this.#breaches.push(`guest ${uid} starts on ${name} before its card is in force`);
    }
  }

  /** Once an instance is gone its addresses are the next one's. */
  #checkCards(instances: readonly Instance[]): void {
    const known = new Set<string>(instances.map(({ metadata }) => metadata.uid));
    for (const { name, machine } of this.#hosts) {
      for (const { card } of machine.cards()) {
        if (card.hostname !== undefined && !known.has(card.uid)) {
          this.#breaches.push(`the card of ${card.hostname} (${card.uid}) is left in force on ${name}`);
        }
      }
    }
  }

  /** A port or an address of a host leads to one place. */
  #checkPublished(): void {
    for (const { name, machine } of this.#hosts) {
      const published = [...machine.bridges.values()].flatMap(({ policy }) => [
        ...policy.addresses.map(({ address }) => address),
        ...policy.publishedPorts.map(({ protocol, port }) => `${protocol} port ${port}`),
      ]);
      const twice = published.filter((one, index) => published.indexOf(one) !== index);
      if (twice.length > 0) this.#breaches.push(`${twice.join(", ")} lead to two places on ${name}`);
    }
  }

  /** An interface whose address may go to somebody else is in no guest any more. */
  async #checkInterfaces(instances: readonly Instance[]): Promise<void> {
    const { items } = await this.#services.resources.list(systemPrincipal, networkInterfaceKind, {
      limit: 1000,
    });
    const held = new Set(
      (items as NetworkInterface[])
        .filter(({ status }) => status.instance !== undefined)
        .map(({ metadata }) => `n-${metadata.uid.slice(0, 12)}`),
    );
    for (const { name, machine } of this.#hosts) {
      for (const [uid, { spec, state }] of machine.world.guests) {
        const instance = instances.find(({ metadata }) => metadata.uid === uid);
        // With a whole project, its interfaces go first.
        if (state !== "running" || !instance || instance.metadata.deletedAt !== undefined) continue;
        for (const { port } of spec.nics) {
          if (!port.startsWith("n-") || held.has(port)) continue;
          this.#breaches.push(
            `guest ${uid} on ${name} has the card ${port}, which is nobody's by its status`,
          );
        }
      }
    }
  }

  #checkStart(uid: string, simulated: SimulatedHost): void {
    const host = simulated.name;
    this.starts++;
    this.#checkCardsOf(uid, simulated);
    const home = this.#homes.get(uid);
    if (home !== undefined && home !== host)
      this.#breaches.push(`guest ${uid} ran on ${home} and starts on ${host}`);
    this.#homes.set(uid, host);
    for (const other of this.#hosts) {
      const there = other.machine.world.guests.get(uid as never);
      if (other.name !== host && there?.state === "running") {
        this.#breaches.push(`guest ${uid} runs on ${other.name} and starts on ${host}`);
      }
    }
    this.#services.resources.list(systemPrincipal, instanceKind, { limit: 1000 }).then(({ items }) => {
      const instance = (items as Instance[]).find(({ metadata }) => metadata.uid === uid);
      if (instance && instance.status.handle === undefined) {
        this.#breaches.push(`guest ${uid} started on ${host} before its handle was recorded`);
      }
      if (instance && instance.status.host !== host) {
        this.#breaches.push(`guest ${uid} started on ${host}, its instance is on ${instance.status.host}`);
      }
    });
  }

  async #checkMemory(instances: readonly Instance[]): Promise<void> {
    const { items } = await this.#services.resources.list(systemPrincipal, hostKind, { limit: 1000 });
    for (const host of items as {
      metadata: { name: string };
      status: { allocatable: { memoryMib: number } };
    }[]) {
      const promised = instances
        .filter(({ status }) => status.host === host.metadata.name)
        .reduce((sum, { spec }) => sum + spec.memoryMib, 0);
      if (promised > host.status.allocatable.memoryMib) {
        this.#breaches.push(`${promised} MiB are promised on ${host.metadata.name}`);
      }
    }
  }

  #checkAddresses(): void {
    const seen = new Map<string, string>();
    for (const { machine } of this.#hosts) {
      for (const [uid, { spec, state }] of machine.world.guests) {
        if (state !== "running") continue;
        for (const { macAddress, ipAddress, netns } of spec.nics) {
          for (const address of [`${netns} ${ipAddress}`, macAddress]) {
            const other = seen.get(address);
            if (other !== undefined && other !== uid) {
              this.#breaches.push(`guests ${uid} and ${other} share ${address}`);
            }
            seen.set(address, uid);
          }
        }
      }
    }
  }

  async #instances(): Promise<Instance[]> {
    const page = await this.#services.resources.list(systemPrincipal, instanceKind, { limit: 1000 });
    return page.items as Instance[];
  }
}

function cardText(
  netns: string,
  card: { port: string; macAddress: string; ipAddress: string; ipv6Address?: string | undefined },
): string {
  return [netns, card.port, card.macAddress, card.ipAddress, card.ipv6Address].join(" ");
}
