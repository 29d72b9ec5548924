import { createAgent } from "../src/agent/agent.ts";
import { silentLogger } from "../src/core/logger.ts";
import { seededRandom } from "../src/core/random.ts";
import type { VirtualClock } from "../src/core/virtual-clock.ts";
import { createFakeDriver } from "../src/drivers/fake/fake-driver.ts";
import type { Services } from "../src/services/services.ts";
import type { Chance } from "./chance.ts";
import { FakeHost } from "./fake-host.ts";
import { driverFaults, type FaultRates, faultyLink, unreliable } from "./faults.ts";
import { ProcessLife } from "./process-life.ts";
import { createServiceClient } from "./service-client.ts";

export interface SimulatedHostOptions {
  name: string;
  clock: VirtualClock;
  services: Services;
  chance: Chance;
  rates: () => FaultRates;
  memoryMib: number;
}

/** A machine with an agent on it that dies and is started again. */
export class SimulatedHost {
  readonly name: string;
  readonly machine: FakeHost;
  deaths = 0;
  readonly #options: SimulatedHostOptions;
  #life: ProcessLife | undefined;

  constructor(options: SimulatedHostOptions) {
    this.#options = options;
    const { name, clock, chance, rates } = options;
    this.name = name;
    this.machine = new FakeHost(name, clock, { faults: driverFaults(chance, rates) });
    this.machine.makeMs = 1_500;
    this.machine.policyMs = 60;
  }

  get agentRuns(): boolean {
    return this.#life?.alive ?? false;
  }

  startAgent(): void {
    const { name, clock, services, chance, rates, memoryMib } = this.#options;
    const life = new ProcessLife({
      dies: () => chance.happens(rates().death),
      onDeath: () => {
        this.deaths++;
        clock.after(chance.between(0, 20_000), () => this.startAgent());
      },
    });
    this.#life = life;
    const { machine } = this;
    const client = createServiceClient(services, faultyLink(chance, clock, rates));
    const agent = createAgent({
      hostName: name,
      client: life.guard(client, "client"),
      drivers: [life.guard(createFakeDriver(machine.world), "driver")],
      images: life.guard(unreliable(machine.images, "images", chance, rates), "images"),
      disks: life.guard(unreliable(machine.disks, "disks", chance, rates), "disks"),
      networks: life.guard(unreliable(machine.networks, "networks", chance, rates), "networks"),
      machine: { cpus: 8, memoryMib, facts: {} },
      connect: async () => true,
      checks: this.machine.checks,
      removeUnusedImages: true,
      clock: life.clock(clock),
      random: seededRandom(chance.below(2 ** 31)),
      logger: silentLogger,
    });
    agent.run(life.signal).catch(() => {
      // It could not even begin: it is started again, as a daemon is.
      if (life.alive) life.kill();
    });
  }

  killAgent(): void {
    this.#life?.kill();
  }

  stopAgent(): void {
    this.#life?.stop();
  }

  /** Power is cut and comes back: agent and guests are gone. */
  reboot(): void {
    this.killAgent();
    this.machine.world.reboot();
  }
}
