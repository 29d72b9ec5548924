import { createLogger } from "../core/logger.ts";
import { seededRandom } from "../core/random.ts";
import { VirtualClock } from "../core/virtual-clock.ts";
import { type Host, hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import type { Resource } from "../kinds/kind.ts";
import { createMemoryMetricStore } from "../metrics/memory/memory-metric-store.ts";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import type { Store } from "../store/store.ts";
import { systemPrincipal } from "./principal.ts";
import { createServices, type Services, type ServicesOptions } from "./services.ts";

/** Services over a memory store, a virtual clock and seeded randomness, with the default project. For tests. */
export async function testServices(
  options: Partial<ServicesOptions> = {},
): Promise<{ services: Services; store: Store; clock: VirtualClock }> {
  const store = options.store ?? createMemoryStore();
  const clock = new VirtualClock();
  const services = createServices({
    store,
    metrics: createMemoryMetricStore({ clock: options.clock ?? clock }),
    clock,
    random: seededRandom(1),
    logger: createLogger("silent"),
    ...options,
  });
  await services.ensureDefaults();
  return { services, store, clock };
}

/** An image of that name, as it is before any host makes it. */
export function createImage(services: Services, name = "debian", project = "default"): Promise<Resource> {
  const spec = { source: { type: "debian", suite: "bookworm" } };
  return services.resources.create(systemPrincipal, imageKind, { name, project, spec });
}

/** A ready host with that much room. */
export async function createHost(services: Services, name: string, memoryMib: number): Promise<Host> {
  const host = await services.resources.create(systemPrincipal, hostKind, { name });
  const room = { cpus: 4, memoryMib, diskMib: 100_000 };
  return services.resources.patchStatus(systemPrincipal, hostKind, { name }, host.metadata.uid, {
    state: "ready",
    capacity: room,
    allocatable: room,
  });
}
