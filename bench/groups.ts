/**
 * `node bench/groups.ts`: what one change of demand costs among 100 and among 10,000 instances in groups of twenty, from the
 * sample that says so to the new member that has a host. In one process, without disk and network: the control plane alone. CPU
 * time, so that others on the machine do not count.
 */

import { controllerVerbs } from "../sim/service-client.ts";
import { startControllers } from "../src/controllers/controllers.ts";
import { toTimestamp } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { seededRandom } from "../src/core/random.ts";
import { settle, VirtualClock } from "../src/core/virtual-clock.ts";
import { type Group, groupKind } from "../src/kinds/group.ts";
import { hostKind } from "../src/kinds/host.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { type Ref, resourcePrefix } from "../src/kinds/keys.ts";
import { leaseKind } from "../src/kinds/lease.ts";
import { networkKind } from "../src/kinds/network.ts";
import { projectKind } from "../src/kinds/project.ts";
import { fromStored } from "../src/kinds/stored.ts";
import { createMemoryMetricStore } from "../src/metrics/memory/memory-metric-store.ts";
import { systemPrincipal as me } from "../src/services/principal.ts";
import { createServices } from "../src/services/services.ts";
import { createMemoryStore } from "../src/store/memory/memory-store.ts";
import { median } from "./statistics.ts";

const membersEach = 20;
const rounds = 60;
const project = "default";
const readyCondition = { type: "Ready", status: "true", reason: "Bench", message: "" };

class Bench {
  readonly clock = new VirtualClock();
  readonly store = createMemoryStore();
  readonly metrics = createMemoryMetricStore({ clock: this.clock });
  readonly services = createServices({
    store: this.store,
    metrics: this.metrics,
    clock: this.clock,
    random: seededRandom(1),
    logger: silentLogger,
  });
  readonly #abort = new AbortController();
  readonly groups: Group[] = [];
  /** Instances with a host. */
  placed = 0;

  async start(instances: number): Promise<void> {
    const { resources } = this.services;
    await this.services.ensureDefaults();
    void this.#follow();
    void startControllers({
      store: this.store,
      metrics: this.metrics,
      clock: this.clock,
      random: seededRandom(2),
      logger: silentLogger,
      verbs: controllerVerbs(this.services),
      signal: this.#abort.signal,
    });
    await resources.patch(me, projectKind, { name: project }, { spec: { quota: { groups: 1_000 } } });
    const host = await resources.create(me, hostKind, { name: "alpha", spec: { cpuOvercommit: 16 } });
    const room = { cpus: 10_000, memoryMib: 10_000_000, diskMib: 100_000_000 };
    const drivers = {
      fake: { available: true, message: "", version: "", types: ["container"], abilities: [], facts: {} },
    };
    const status = { state: "ready", capacity: room, allocatable: room, drivers };
    await resources.patchStatus(me, hostKind, { name: "alpha" }, host.metadata.uid, status as never);
    const lease = { holder: "bench", durationMs: 600_000, renewedAt: toTimestamp(this.clock.now()) };
    await resources.apply(me, leaseKind, { name: "alpha", spec: lease });
    const source = { source: { type: "debian", suite: "bookworm" } };
    const image = await resources.create(me, imageKind, { project, name: "base", spec: source });
    const made = { state: "ready", host: "alpha", types: ["container"] };
    await resources.patchStatus(me, imageKind, { project, name: "base" }, image.metadata.uid, made as never);
    const network = { cidr: "10.0.0.0/16", hostRoute: false };
    await resources.create(me, networkKind, { project, name: "wide", spec: network });
    for (let index = 0; index < instances / membersEach; index++) await this.#createGroup(index);
    await this.until(() => this.placed >= instances);
    await this.#allReady();
    await this.rest();
  }

  async #createGroup(index: number): Promise<void> {
    const spec = {
      template: { type: "container", image: "base", network: "wide", memoryMib: 64, diskMib: 64 },
      min: membersEach,
      max: 500,
      policies: [{ type: "target", name: "jobs", metric: "custom/jobs", target: 1, tolerance: 0 }],
    };
    const name = `group-${index}`;
    this.groups.push(await this.services.resources.create(me, groupKind, { project, name, spec }));
  }

  async #allReady(): Promise<void> {
    const conditions = [{ ...readyCondition, since: toTimestamp(this.clock.now()) }];
    for (const instance of await this.#instances()) {
      const { metadata } = instance;
      await this.services.resources.patchStatus(me, instanceKind, metadata as Ref, metadata.uid, {
        state: "running",
        conditions,
      });
    }
  }

  async #instances(): Promise<Instance[]> {
    const found: Instance[] = [];
    let after: string | undefined;
    do {
      const page = await this.store.list(resourcePrefix(instanceKind), {
        limit: 1_000,
        ...(after === undefined ? {} : { after }),
      });
      found.push(...page.entries.map((entry) => fromStored<Instance>(entry)));
      after = page.next;
    } while (after !== undefined);
    return found;
  }

  /** One group's demand grows by one: milliseconds of work until the new member has a host. */
  async change(round: number): Promise<number> {
    const group = this.groups[round % this.groups.length];
    if (!group) throw new Error("there are no groups");
    const value = membersEach + 1 + Math.floor(round / this.groups.length);
    const before = this.placed;
    const { name, uid } = group.metadata;
    const at = this.clock.now();
    const begun = process.cpuUsage();
    this.metrics.record([{ subject: `/groups/${project}/${name}`, uid, metric: "custom/jobs", at, value }]);
    await this.until(() => this.placed > before);
    const { user, system } = process.cpuUsage(begun);
    const took = (user + system) / 1000;
    await this.rest();
    await this.clock.advance(100);
    return took;
  }

  async until(condition: () => boolean): Promise<void> {
    for (let turn = 0; !condition(); turn++) {
      await settle();
      if (turn > 1_000_000) throw new Error("waited in vain");
    }
  }

  async rest(): Promise<void> {
    for (let turn = 0; turn < 200; turn++) await settle();
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.clock.advance(1_000);
    await this.store.close();
  }

  async #follow(): Promise<void> {
    const hosts = new Set<string>();
    try {
      for await (const event of this.store.watch(resourcePrefix(instanceKind), 0, this.#abort.signal)) {
        if (event.type !== "put" || hosts.has(event.key)) continue;
        if (fromStored<Instance>(event).status.host === undefined) continue;
        hosts.add(event.key);
        this.placed++;
      }
    } catch (error) {
      if (!this.#abort.signal.aborted) throw error;
    }
  }
}

/** The median of so many changes. */
async function measure(instances: number): Promise<number> {
  const bench = new Bench();
  await bench.start(instances);
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) times.push(await bench.change(round));
  await bench.stop();
  return median(times);
}

const pairs: { few: number; many: number }[] = [];
// The first pair warms the process up.
for (let pair = 0; pair < 4; pair++) pairs.push({ few: await measure(100), many: await measure(10_000) });
pairs.shift();
for (const { few, many } of pairs) {
  console.log(`one change: ${few.toFixed(2)} ms among 100 instances, ${many.toFixed(2)} ms among 10,000`);
}
console.log(
  `ratio ${median(pairs.map(({ few, many }) => many / few)).toFixed(2)} (median of ${pairs.length} pairs)`,
);
