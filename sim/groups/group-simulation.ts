/**
 * Groups over months, from a seed: many groups on hosts that are too small for all that is wanted at the same time, demand that
 * changes by hour, day and week, guests that crash, messages that are lost, controllers that are killed. Time is virtual.
 *
 * What must hold is in group-invariants.ts.
 */
import { createCaches } from "../../src/controllers/controllers.ts";
import { createGroupReconciler } from "../../src/controllers/groups/groups.ts";
import { GroupState } from "../../src/controllers/groups/state.ts";
import { createPlacementReconciler } from "../../src/controllers/placement/placement.ts";
import { createScaling } from "../../src/controllers/scaling/scaling.ts";
import { createRetention } from "../../src/controllers/tidy/retention.ts";
import { silentLogger } from "../../src/core/logger.ts";
import { seededRandom } from "../../src/core/random.ts";
import { settle, VirtualClock } from "../../src/core/virtual-clock.ts";
import { type Group, groupKind } from "../../src/kinds/group.ts";
import { hostKind } from "../../src/kinds/host.ts";
import { imageKind } from "../../src/kinds/image.ts";
import { networkKind } from "../../src/kinds/network.ts";
import { createMemoryMetricStore } from "../../src/metrics/memory/memory-metric-store.ts";
import type { MetricStore } from "../../src/metrics/metric-store.ts";
import { runReconciler } from "../../src/reconcile/runner.ts";
import { systemPrincipal as me } from "../../src/services/principal.ts";
import { createServices, type Services } from "../../src/services/services.ts";
import { createMemoryStore } from "../../src/store/memory/memory-store.ts";
import type { Store } from "../../src/store/store.ts";
import { Chance } from "../chance.ts";
import { ProcessLife } from "../process-life.ts";
import { controllerVerbs } from "../service-client.ts";
import { Demand } from "./demand.ts";
import { GroupInvariants } from "./group-invariants.ts";
import { ModelHosts } from "./model-hosts.ts";
import { portraitOf } from "./portrait.ts";

export interface GroupSimulationOptions {
  seed: number;
  days: number;
  hosts?: number;
  groups?: number;
  /** Members that all groups want on a usual day, about. */
  instances?: number;
  /** How probable it is that a crash of a guest takes the controllers with it. Default 0.005. */
  killRate?: number;
  /** Called after each day of the history. */
  onDay?: (day: number, counts: Record<string, number>) => void;
}

export interface GroupSimulationResult {
  seed: number;
  counts: Record<string, number>;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const project = "default";
const memberMib = 256;
/** Jobs that one member does. */
const perMember = 10;
/** Kept in the store for those who watch. */
const keptRevisions = 5_000;

/** @throws an Error that names the seed and what does not hold. */
export async function simulateGroups(options: GroupSimulationOptions): Promise<GroupSimulationResult> {
  const simulation = new GroupSimulation(options);
  try {
    return await simulation.run();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const portrait = await simulation.portrait(text);
    throw new Error(`seed ${options.seed}, day ${simulation.day}: ${text}\n  ${portrait}`, { cause: error });
  } finally {
    await simulation.end();
  }
}

class GroupSimulation {
  readonly #options: Required<Omit<GroupSimulationOptions, "onDay">>;
  readonly #onDay: GroupSimulationOptions["onDay"];
  readonly #clock = new VirtualClock(Date.UTC(2030, 0, 1));
  readonly #store: Store = createMemoryStore();
  readonly #metrics: MetricStore;
  readonly #services: Services;
  readonly #chance: Chance;
  readonly #abort = new AbortController();
  readonly #hosts: ModelHosts;
  readonly #demands = new Map<string, { group: Group; demand: Demand }>();
  readonly #invariants: GroupInvariants;
  #life: ProcessLife | undefined;
  #faults = true;
  #deaths = 0;
  day = 0;

  constructor({ onDay, ...options }: GroupSimulationOptions) {
    this.#onDay = onDay;
    this.#options = { hosts: 20, groups: 50, instances: 1_000, killRate: 0.005, ...options };
    const { seed } = options;
    const clock = this.#clock;
    const store = this.#store;
    this.#chance = new Chance(seed);
    this.#metrics = createMemoryMetricStore({ clock });
    this.#services = createServices({
      store,
      metrics: this.#metrics,
      clock,
      random: seededRandom(seed + 1),
      logger: silentLogger,
    });
    this.#hosts = new ModelHosts({
      store,
      services: this.#services,
      clock,
      chance: new Chance(seed + 2),
      faults: () => this.#faults,
      signal: this.#abort.signal,
    });
    this.#invariants = new GroupInvariants({ store, clock, hosts: this.#hosts, signal: this.#abort.signal });
  }

  async run(): Promise<GroupSimulationResult> {
    await this.#services.ensureDefaults();
    this.#startControllers();
    await this.#populate();
    const begin = this.#clock.now();
    const end = begin + this.#options.days * dayMs;
    for (let hour = begin; hour < end; hour += hourMs) {
      this.day = Math.floor((hour - begin) / dayMs);
      await this.#hour(hour);
      if ((hour + hourMs - begin) % dayMs > 0) continue;
      await this.#tidy();
      this.#onDay?.(this.day + 1, this.#counts());
    }
    this.#faults = false;
    await this.#clock.advance(hourMs);
    await settle();
    await this.#invariants.check();
    await this.#invariants.checkRest();
    return { seed: this.#options.seed, counts: this.#counts() };
  }

  #counts(): Record<string, number> {
    return { ...this.#invariants.counts, ...this.#hosts.counts, controllerDeaths: this.#deaths };
  }

  portrait(problem: string): Promise<string> {
    return portraitOf(this.#store, [...this.#hosts.instances.values()], problem);
  }

  async end(): Promise<void> {
    this.#life?.stop();
    this.#abort.abort();
    await this.#clock.advance(1_000);
    await this.#store.close();
  }

  /** Demand is told at its beginning; crashes follow; when it ends, all must be as it should. */
  async #hour(begin: number): Promise<void> {
    const samples = [...this.#demands.values()].map(({ group, demand }) => ({
      subject: `/groups/${project}/${group.metadata.name}`,
      uid: group.metadata.uid,
      metric: "custom/jobs",
      at: begin,
      value: demand.at(begin),
    }));
    this.#metrics.record(samples);
    // Who starts anew then finds wishes that differ from what groups have.
    if (this.#chance.happens(this.#options.killRate)) this.#life?.kill();
    await settle();
    const crashes = this.#chance.below(6);
    for (let crash = 0; crash < crashes; crash++) {
      await this.#clock.advance(this.#chance.between(1_000, 300_000));
      this.#hosts.crash();
      if (this.#chance.happens(this.#options.killRate)) this.#life?.kill();
    }
    await this.#clock.advanceTo(begin + hourMs);
    await this.#invariants.check();
  }

  /** As a daemon does it, more often. */
  async #tidy(): Promise<void> {
    await this.#services.prune();
    await this.#store.compact(Math.max(0, (await this.#store.revision()) - keptRevisions));
  }

  async #populate(): Promise<void> {
    const { hosts, groups, instances } = this.#options;
    const { resources } = this.#services;
    // About nine tenths of what is wanted on a usual day, so that peaks do not fit.
    const memoryMib = Math.ceil((instances / hosts) * 1.1) * memberMib;
    for (let index = 0; index < hosts; index++) {
      const name = `host-${index}`;
      const host = await resources.create(me, hostKind, { name, spec: { cpuOvercommit: 16 } });
      const room = { cpus: 64, memoryMib, diskMib: 10_000_000 };
      const drivers = {
        fake: { available: true, message: "", version: "", types: ["container"], abilities: [], facts: {} },
      };
      const status = { state: "ready", capacity: room, allocatable: room, drivers };
      await resources.patchStatus(me, hostKind, { name }, host.metadata.uid, status as never);
      const image = await resources.create(me, imageKind, {
        project,
        name: `image-${index}`,
        spec: { source: { type: "debian", suite: "bookworm" } },
      });
      const made = { state: "ready", host: name, types: ["container"] };
      await resources.patchStatus(
        me,
        imageKind,
        { project, name: `image-${index}` },
        image.metadata.uid,
        made as never,
      );
      this.#invariants.capacity.set(name, memoryMib);
    }
    const spec = { cidr: "10.0.0.0/16", hostRoute: false };
    await resources.create(me, networkKind, { project, name: "wide", spec });
    const usual = instances / groups;
    for (let index = 0; index < groups; index++) {
      const name = `group-${index}`;
      const size = Math.max(2, Math.round((usual * this.#chance.between(50, 150)) / 100));
      const spec = {
        template: {
          type: "container",
          image: `image-${index % hosts}`,
          memoryMib: memberMib,
          diskMib: 64,
          network: "wide",
        },
        min: Math.max(1, Math.floor(size / 4)),
        max: Math.min(1_000, size * 4),
        priority: this.#chance.below(4),
        lends: this.#chance.happens(0.9),
        warm: this.#chance.happens(0.3) ? 1 : 0,
        policies: [{ type: "target", name: "jobs", metric: "custom/jobs", target: perMember }],
        behavior: { inStabilizationSeconds: 60, inCooldownSeconds: 0 },
        drainSeconds: 10,
      };
      this.#invariants.minimums.set(name, spec.min);
      const group = await resources.create(me, groupKind, { project, name, spec });
      this.#demands.set(name, { group, demand: new Demand(this.#chance, size * perMember) });
    }
  }

  #startControllers(): void {
    const life = new ProcessLife({
      dies: () => this.#faults && this.#chance.happens(0.000_02),
      onDeath: () => {
        this.#deaths++;
        this.#clock.after(this.#chance.between(0, 5_000), () => this.#startControllers());
      },
    });
    this.#life = life;
    const parts = {
      store: life.guard(this.#store, "store"),
      clock: life.clock(this.#clock),
      random: seededRandom(this.#chance.below(2 ** 31)),
      logger: silentLogger,
    };
    const caches = createCaches(parts);
    const verbs = life.guard(controllerVerbs(this.#services), "verbs");
    const context = { ...parts, metrics: this.#metrics, caches, verbs };
    const state = new GroupState(caches, parts.clock);
    const scaling = createScaling(context, state);
    const shared = { ...parts, resyncMs: dayMs };
    const { signal } = life;
    void runReconciler(createPlacementReconciler(context), { ...shared, concurrency: 1 }, signal);
    void runReconciler(createGroupReconciler(context, state, scaling.isScarce), shared, signal);
    void runReconciler(scaling.reconciler, shared, signal);
    void runReconciler(createRetention(context, "events", 500), shared, signal);
    void runReconciler(createRetention(context, "scalingDecisions", 500), shared, signal);
    for (const cache of Object.values(caches)) void cache.run(signal);
  }
}
