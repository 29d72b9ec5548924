/** Where concrete parts meet: store, services, API, controllers, agent, drivers and host. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createApi } from "../api/api.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { describeError } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import { createServices, type Services } from "../services/services.ts";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import { openSqliteStore } from "../store/sqlite/sqlite-store.ts";
import type { Store } from "../store/store.ts";
import { ensureCertificate } from "./certificate.ts";
import type { Settings } from "./settings.ts";

export interface RunningDaemon {
  httpsPort: number;
  /** In the order in which parts depend on one another: first who asks, last who answers. */
  close(): Promise<void>;
}

const compactEveryMs = 10 * 60_000;
/** History that watchers may still resume from. */
const keptRevisions = 20_000;

export async function startParts(settings: Settings, logger: Logger): Promise<RunningDaemon> {
  const store = settings.fake
    ? createMemoryStore()
    : openSqliteStore({ path: join(settings.stateDir, "store.db") });
  const closers: (() => Promise<void>)[] = [() => store.close()];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const services = createServices({
      store,
      clock: systemClock,
      random: systemRandom,
      logger: logger.child({ part: "services" }),
      networkPool: settings.networkPool,
    });
    await services.ensureDefaults();
    const api = await createApi({
      services,
      clock: systemClock,
      random: systemRandom,
      logger: logger.child({ part: "api" }),
      version: ownVersion(),
    });
    closers.push(() => api.close());
    const certificate = await ensureCertificate(settings.stateDir, systemClock);
    const https = await api.listenHttps({ host: "127.0.0.1", port: settings.httpsPort, ...certificate });
    await api.listenUnix(settings.socketPath);
    closers.push(keepTidy(store, services, systemClock, logger));
    return { httpsPort: https.port, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function ownVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Now and then forgets history and what has lapsed. */
function keepTidy(store: Store, services: Services, clock: Clock, logger: Logger): () => Promise<void> {
  const ended = new AbortController();
  const running = (async () => {
    for (;;) {
      await clock.sleep(compactEveryMs, ended.signal);
      try {
        const { revision } = await store.list("/", { limit: 1 });
        if (revision > keptRevisions) await store.compact(revision - keptRevisions);
        await services.prune();
      } catch (error) {
        logger.warn({ error: describeError(error) }, "tidying the store failed; it is tried again");
      }
    }
  })().catch(() => {});
  return async () => {
    ended.abort();
    await running;
  };
}
