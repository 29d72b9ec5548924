/** One host with its agent and the controllers, on a virtual clock: for tests of the agent. */
import { createAgent } from "../src/agent/agent.ts";
import type { AgentOptions } from "../src/agent/agent-context.ts";
import type { Client } from "../src/client/client.ts";
import { startControllers } from "../src/controllers/controllers.ts";
import { silentLogger } from "../src/core/logger.ts";
import { seededRandom } from "../src/core/random.ts";
import { settle, VirtualClock } from "../src/core/virtual-clock.ts";
import type { GuestDriver } from "../src/drivers/driver.ts";
import { createFakeDriver } from "../src/drivers/fake/fake-driver.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { createMemoryMetricStore } from "../src/metrics/memory/memory-metric-store.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import { createServices } from "../src/services/services.ts";
import { createMemoryStore } from "../src/store/memory/memory-store.ts";
import { FakeHost } from "./fake-host.ts";
import { controllerVerbs, createServiceClient, type Link } from "./service-client.ts";

export type AgentBench = Awaited<ReturnType<typeof agentBench>>;

export async function agentBench(
  overrides: Partial<AgentOptions> & { link?: Link; withoutCards?: boolean } = {},
) {
  const clock = new VirtualClock();
  const store = createMemoryStore();
  const logger = silentLogger;
  const metrics = createMemoryMetricStore({ clock });
  const services = createServices({ store, metrics, clock, random: seededRandom(1), logger });
  await services.ensureDefaults();
  const host = new FakeHost("alpha", clock);
  const { link, withoutCards = false, ...options } = overrides;
  const client: Client = createServiceClient(services, link);
  const me = systemPrincipal;
  const controllersAbort = new AbortController();
  const controllers = startControllers({
    store,
    metrics,
    clock,
    random: seededRandom(2),
    logger,
    verbs: controllerVerbs(services),
    signal: controllersAbort.signal,
  });
  let agentAbort = new AbortController();
  let agent: Promise<void> = Promise.resolve();
  const startAgent = (more: Partial<AgentOptions> = {}) => {
    agentAbort = new AbortController();
    agent = createAgent({
      hostName: host.name,
      client,
      drivers: [withoutCards ? plainDriver(host) : createFakeDriver(host.world)],
      images: host.images,
      disks: host.disks,
      pools: host.pools,
      networks: host.networks,
      machine: { cpus: 16, memoryMib: 16_384, facts: {} },
      connect: async () => true,
      checks: host.checks,
      clock,
      random: seededRandom(3),
      logger,
      ...options,
      ...more,
    }).run(agentAbort.signal);
  };
  const stopAgent = async () => {
    agentAbort.abort();
    await drive(agent);
  };
  /** Time goes on until the promise is settled. */
  const drive = async <T>(promise: Promise<T>): Promise<T> => {
    let pending = true;
    promise
      .finally(() => {
        pending = false;
      })
      .catch(() => {});
    for (let i = 0; i < 10_000 && pending; i++) {
      await settle();
      if (pending) await clock.advance(10);
    }
    return promise;
  };
  const get = (name: string) => services.resources.get(me, instanceKind, { project: "default", name });
  const waitFor = async (what: string, condition: () => Promise<boolean> | boolean, withinMs = 60_000) => {
    const end = clock.now() + withinMs;
    for (;;) {
      await settle();
      if (await condition()) return;
      if (clock.now() >= end) throw new Error(`not within ${withinMs} ms: ${what}`);
      await clock.advance(10);
    }
  };
  startAgent();
  await settle();
  return {
    clock,
    store,
    services,
    host,
    me,
    client,
    drive,
    startAgent,
    stopAgent,
    /** It does not answer any more; nobody waits for it. */
    killAgent: () => agentAbort.abort(),
    waitFor,
    get,
    createImage: (name = "debian") =>
      services.resources.create(me, imageKind, {
        project: "default",
        name,
        spec: { source: { type: "debian", suite: "bookworm" } },
      }),
    createInstance: (name: string, spec: object = {}) =>
      services.resources.create(me, instanceKind, {
        project: "default",
        name,
        spec: { type: "container", image: "debian", ...spec },
      }),
    patch: (name: string, spec: Record<string, never> | object) =>
      services.resources.patch(me, instanceKind, { project: "default", name }, { spec: spec as never }),
    remove: (name: string) => services.resources.delete(me, instanceKind, { project: "default", name }),
    async until(
      name: string,
      condition: (instance: Instance) => boolean,
      withinMs?: number,
    ): Promise<Instance> {
      let last: Instance | undefined;
      const check = async () => {
        last = await get(name);
        return last !== undefined && condition(last);
      };
      try {
        await waitFor(`instance ${name}`, check, withinMs);
      } catch (error) {
        throw new Error(`${error}: ${JSON.stringify(last?.status)}`);
      }
      return last as unknown as Instance;
    },
    async stop() {
      controllersAbort.abort();
      agentAbort.abort();
      await drive(Promise.all([agent, controllers]));
    },
  };
}

/** A driver that can plug no cards while guests run, nor change their size. */
function plainDriver(host: FakeHost): GuestDriver {
  const driver = createFakeDriver(host.world);
  return new Proxy(driver, {
    get(target, name) {
      if (name === "cards" || name === "resize") return undefined;
      const member = Reflect.get(target, name, target) as unknown;
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}
