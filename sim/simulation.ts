/**
 * A whole cluster from a seed: one control plane, several hosts, users who keep changing their minds, and everything
 * that can go wrong. Time is virtual, so hours pass in seconds, and the same seed gives the same history.
 *
 * What must hold at all times is in invariants.ts; what must hold once the faults have stopped is in settled.ts.
 */
import { startControllers } from "../src/controllers/controllers.ts";
import { silentLogger } from "../src/core/logger.ts";
import { seededRandom } from "../src/core/random.ts";
import { settle, VirtualClock } from "../src/core/virtual-clock.ts";
import { createMemoryMetricStore } from "../src/metrics/memory/memory-metric-store.ts";
import type { MetricStore } from "../src/metrics/metric-store.ts";
import { createServices, type Services } from "../src/services/services.ts";
import { createMemoryStore } from "../src/store/memory/memory-store.ts";
import type { Store } from "../src/store/store.ts";
import { Chance } from "./chance.ts";
import { type FaultRates, late, noFaults } from "./faults.ts";
import { Invariants } from "./invariants.ts";
import { ProcessLife } from "./process-life.ts";
import { controllerVerbs, createServiceClient } from "./service-client.ts";
import { unsettled } from "./settled.ts";
import { SimulatedHost } from "./simulated-host.ts";
import { Users } from "./users.ts";

export interface SimulationOptions {
  seed: number;
  hosts?: number;
  /** How long users and faults go on. Default four minutes. */
  turmoilMs?: number;
}

export interface SimulationResult {
  seed: number;
  /** What happened, for a summary. */
  counts: Record<string, number>;
}

/** Time for all to come to rest once the faults have stopped: longer than every back-off and grace together. */
const restMs = 15 * 60_000;
const turmoil: FaultRates = { death: 0.002, link: 0.02, driver: 0.03, host: 0.02 };

/** @throws an Error that names the seed and what does not hold. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const simulation = new Simulation(options);
  try {
    return await simulation.run();
  } catch (error) {
    const last = simulation.users.history.slice(-12).join("\n  ");
    throw new Error(
      `seed ${options.seed}: ${error instanceof Error ? error.message : error}\n  last:\n  ${last}`,
      { cause: error },
    );
  }
}

class Simulation {
  readonly clock = new VirtualClock();
  readonly store: Store = createMemoryStore();
  readonly #metrics: MetricStore;
  readonly services: Services;
  readonly hosts: SimulatedHost[];
  readonly users: Users;
  readonly invariants: Invariants;
  readonly #options: SimulationOptions;
  readonly #chance: Chance;
  #rates: FaultRates = turmoil;
  #controllers: ProcessLife | undefined;
  #controllerDeaths = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    const { seed } = options;
    this.#chance = new Chance(seed);
    const { clock, store } = this;
    this.#metrics = createMemoryMetricStore({ clock });
    this.services = createServices({
      store,
      metrics: this.#metrics,
      clock,
      random: seededRandom(seed + 1),
      logger: silentLogger,
    });
    this.hosts = Array.from(
      { length: options.hosts ?? 3 },
      (_, index) =>
        new SimulatedHost({
          name: `host-${index + 1}`,
          clock,
          services: this.services,
          chance: new Chance(seed * 31 + index),
          rates: () => this.#rates,
          memoryMib: 4_096,
        }),
    );
    this.users = new Users({
      client: createServiceClient(this.services),
      services: this.services,
      clock,
      chance: new Chance(seed + 2),
      hosts: this.hosts,
      killControllers: () => this.#controllers?.kill(),
    });
    this.invariants = new Invariants(this.services, this.hosts, this.users);
  }

  async run(): Promise<SimulationResult> {
    await this.services.ensureDefaults();
    this.#startControllers();
    for (const host of this.hosts) host.startAgent();
    const end = this.clock.now() + (this.#options.turmoilMs ?? 240_000);
    while (this.clock.now() < end) {
      await this.users.act();
      await this.#pass(this.#chance.between(1, 1_500));
    }
    this.#rates = noFaults;
    await this.#rest();
    const counts = {
      ...this.users.counts,
      guestStarts: this.invariants.starts,
      guestsAtRest: this.invariants.runs().size,
      agentDeaths: this.hosts.reduce((sum, host) => sum + host.deaths, 0),
      controllerDeaths: this.#controllerDeaths,
    };
    await this.#end();
    return { seed: this.#options.seed, counts };
  }

  async #pass(ms: number): Promise<void> {
    await settle();
    await this.clock.advance(ms);
    await this.invariants.check();
  }

  /** Until everything is as wanted, and then a while longer: it must stay so. */
  async #rest(): Promise<void> {
    const end = this.clock.now() + restMs;
    for (;;) {
      await this.#pass(5_000);
      const problems = await unsettled(this.services, this.hosts);
      if (problems.length === 0) break;
      if (this.clock.now() >= end) throw new Error(`not at rest: ${problems.slice(0, 8).join("; ")}`);
    }
    const runs = this.invariants.runs();
    await this.#pass(12 * 60_000);
    const problems = await unsettled(this.services, this.hosts);
    if (problems.length > 0) throw new Error(`did not stay at rest: ${problems.slice(0, 8).join("; ")}`);
    this.invariants.checkSameRuns(runs);
  }

  async #end(): Promise<void> {
    for (const host of this.hosts) host.stopAgent();
    this.#controllers?.stop();
    await this.clock.advance(1_000);
    await this.store.close();
  }

  #startControllers(): void {
    const life = new ProcessLife({
      dies: () => this.#chance.happens(this.#rates.death),
      onDeath: () => {
        this.#controllerDeaths++;
        this.clock.after(this.#chance.between(0, 5_000), () => this.#startControllers());
      },
    });
    this.#controllers = life;
    startControllers({
      store: life.guard(late(this.store, this.clock, this.#chance), "store"),
      metrics: this.#metrics,
      clock: life.clock(this.clock),
      random: seededRandom(this.#chance.below(2 ** 31)),
      logger: silentLogger,
      verbs: life.guard(controllerVerbs(this.services), "verbs"),
      signal: life.signal,
    }).catch(() => life.kill());
  }
}
