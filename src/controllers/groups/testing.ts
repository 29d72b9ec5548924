import { controllerVerbs } from "../../../sim/service-client.ts";
import { toTimestamp } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import { silentLogger } from "../../core/logger.ts";
import { seededRandom } from "../../core/random.ts";
import { settle, type VirtualClock } from "../../core/virtual-clock.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { hostKind } from "../../kinds/host.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { withCondition } from "../../kinds/kind.ts";
import { leaseKind } from "../../kinds/lease.ts";
import { type ScalingDecision, scalingDecisionKind } from "../../kinds/scaling-decision.ts";
import { createMemoryMetricStore } from "../../metrics/memory/memory-metric-store.ts";
import type { MetricStore } from "../../metrics/metric-store.ts";
import { systemPrincipal as me } from "../../services/principal.ts";
import type { Services } from "../../services/services.ts";
import { createHost, createImage, testServices } from "../../services/testing.ts";
import type { Store } from "../../store/store.ts";
import { startControllers } from "../controllers.ts";

const project = "default";
export const leaseMs = 600_000;
const drivers = {
  fake: { available: true, message: "", version: "", types: ["container"], abilities: [], facts: {} },
};

/** Controllers over a memory store and a virtual clock, with one host whose agent is the test. */
export class GroupWorldForTests {
  readonly services: Services;
  readonly store: Store;
  readonly clock: VirtualClock;
  readonly metrics: MetricStore;
  #abort = new AbortController();
  #running: Promise<void> = Promise.resolve();

  private constructor(parts: {
    services: Services;
    store: Store;
    clock: VirtualClock;
    metrics: MetricStore;
  }) {
    ({ services: this.services, store: this.store, clock: this.clock, metrics: this.metrics } = parts);
  }

  static async start(memoryMib = 65_536): Promise<GroupWorldForTests> {
    const { services, store, clock } = await testServices();
    const metrics = createMemoryMetricStore({ clock });
    const world = new GroupWorldForTests({ services, store, clock, metrics });
    world.startControllers();
    const host = await createHost(services, "alpha", memoryMib);
    const room = { cpus: 1_000, memoryMib, diskMib: 100_000 };
    await services.resources.patchStatus(me, hostKind, { name: "alpha" }, host.metadata.uid, {
      drivers,
      capacity: room,
      allocatable: room,
    } as never);
    await world.#renew();
    await createImage(services);
    await settle();
    return world;
  }

  startControllers(): void {
    this.#abort = new AbortController();
    this.#running = startControllers({
      store: this.store,
      metrics: this.metrics,
      clock: this.clock,
      random: seededRandom(7),
      logger: silentLogger,
      verbs: controllerVerbs(this.services),
      signal: this.#abort.signal,
    });
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  /** The host's agent stays alive. */
  async pass(ms: number): Promise<void> {
    const end = this.clock.now() + ms;
    do {
      await this.#renew();
      await this.clock.advanceTo(Math.min(end, this.clock.now() + leaseMs / 2));
      await this.#agent();
    } while (this.clock.now() < end);
  }

  /** The host's agent gives no sign of life until it passes time again. */
  async silence(ms: number): Promise<void> {
    await this.clock.advanceTo(this.clock.now() + ms);
    await settle();
  }

  async #renew(): Promise<void> {
    const spec = { holder: "test", durationMs: leaseMs, renewedAt: toTimestamp(this.clock.now()) };
    await this.services.resources.apply(me, leaseKind, { name: "alpha", spec });
    await settle();
  }

  async createGroup(name: string, spec: JsonObject, template: JsonObject = {}): Promise<Group> {
    const group = await this.services.resources.create(me, groupKind, {
      project,
      name,
      spec: { ...spec, template: { type: "container", image: "debian", memoryMib: 512, ...template } },
    });
    await this.#agent();
    return group;
  }

  async patchGroup(name: string, spec: JsonObject): Promise<void> {
    await this.services.resources.patch(me, groupKind, { project, name }, { spec });
    await this.#agent();
  }

  async deleteGroup(name: string): Promise<void> {
    await this.services.resources.delete(me, groupKind, { project, name });
    await this.#agent();
  }

  async deleteMember({ metadata: { name } }: Instance): Promise<void> {
    await this.services.resources.delete(me, instanceKind, { project, name });
    await this.#agent();
  }

  group(name: string): Promise<Group> {
    return this.services.resources.require(me, groupKind, { project, name });
  }

  findGroup(name: string): Promise<Group | undefined> {
    return this.services.resources.get(me, groupKind, { project, name });
  }

  /** All that are not marked for deletion. */
  async members(group: string): Promise<Instance[]> {
    return (await this.#instances()).filter(
      ({ metadata }) => metadata.owner?.name === group && metadata.deletedAt === undefined,
    );
  }

  async decisions(): Promise<ScalingDecision["spec"][]> {
    const page = await this.services.resources.list(me, scalingDecisionKind, { project });
    return page.items.map(({ spec }) => spec as ScalingDecision["spec"]);
  }

  async report(instance: Instance, status: JsonObject): Promise<void> {
    const { name, uid } = instance.metadata;
    await this.services.resources.patchStatus(me, instanceKind, { project, name }, uid, status);
    await this.#agent();
  }

  /** What runs becomes Ready, or what is made of an image that does not work stays as it is. */
  async ready(group: string, isReady: (member: Instance) => boolean = () => true): Promise<void> {
    for (let round = 0; round < 60; round++) {
      const waiting = (await this.members(group)).filter(
        (member) => member.status.state === "pending" && member.status.host !== undefined && isReady(member),
      );
      if (waiting.length === 0) return;
      for (const member of waiting) await this.readyNow(member);
    }
    throw new Error(`group ${group} does not come to rest`);
  }

  async readyNow(member: Instance, ready = true): Promise<void> {
    const at = toTimestamp(this.clock.now());
    const conditions = withCondition(
      member.status.conditions,
      {
        type: "Ready",
        status: ready ? "true" : "false",
        reason: "Test",
        message: ready ? "" : "does not answer",
      },
      at,
    );
    await this.report(member, { state: "running", conditions: conditions as never, startedAt: at });
  }

  /** What is being deleted is taken away, as an agent does. */
  async #agent(): Promise<void> {
    await settle();
    for (const { metadata } of await this.#instances()) {
      if (metadata.deletedAt === undefined || metadata.finalizers.length === 0) continue;
      const ref = { project, name: metadata.name };
      await this.services.resources.removeFinalizer(me, instanceKind, ref, metadata.uid, "agent");
    }
    await settle();
  }

  async #instances(): Promise<Instance[]> {
    const page = await this.services.resources.list(me, instanceKind, { project, limit: 1000 });
    return page.items as Instance[];
  }
}
