/** Where concrete parts meet: store, services, API, controllers, agent, drivers and host. */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { createAgent } from "../agent/agent.ts";
import { createApi } from "../api/api.ts";
import { createHttpClient } from "../client/http-client.ts";
import { startControllers } from "../controllers/controllers.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { describeError } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import { ownFile } from "../core/own-files.ts";
import { systemRandom } from "../core/random.ts";
import type { MetricStore } from "../metrics/metric-store.ts";
import { openSqliteMetricStore } from "../metrics/sqlite/sqlite-metric-store.ts";
import { systemPrincipal } from "../services/principal.ts";
import { createServices, type Services } from "../services/services.ts";
import { Uploads } from "../services/uploads.ts";
import type { Store } from "../store/store.ts";
import { ensureCertificate } from "./certificate.ts";
import { createLocalClient } from "./local-client.ts";
import { ensureMetadataKey } from "./metadata-key.ts";
import type { Settings } from "./settings.ts";
import { openState } from "./state.ts";

export interface RunningDaemon {
  httpsPort: number;
  /** In the order in which parts depend on one another: first who asks, last who answers. */
  close(): Promise<void>;
}

const pruneEveryMs = 10 * 60_000;
/** How long the agent's calls wait for the API. */
const agentRetryMs = 10_000;

/** `beforeAnswers`: called when the state is this process's own, before anybody can reach it over the socket. */
export async function startParts(
  settings: Settings,
  logger: Logger,
  beforeAnswers: (httpsPort: number) => Promise<void>,
): Promise<RunningDaemon> {
  // The first of all: whoever is too late has touched nothing.
  const state = await openState(settings);
  const { store } = state;
  const closers: (() => Promise<void>)[] = [state.close];
  const metrics = openSqliteMetricStore({
    path: join(settings.stateDir, "metrics.db"),
    clock: systemClock,
    logger: logger.child({ part: "metrics" }),
  });
  closers.push(async () => metrics.close());
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  /** TCP ports that may not be published: who publishes SSH locks the administrator out of the host. */
  const ownPorts = [22];
  try {
    const services = createServices({
      store,
      metrics,
      clock: systemClock,
      random: systemRandom,
      logger: logger.child({ part: "services" }),
      networkPool: settings.networkPool,
      addressPool: settings.addressPool,
      reservedPorts: () => ownPorts,
      uploads: await Uploads.open({
        dir: join(settings.stateDir, "uploads"),
        clock: systemClock,
        random: systemRandom,
      }),
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
    ownPorts.push(https.port);
    await beforeAnswers(https.port);
    await api.listenUnix(settings.socketPath);
    closers.push(keepTidy(services, systemClock, logger));
    closers.push(startController({ store, metrics, services, logger }));
    closers.push(await startAgent(settings, services, logger));
    return { httpsPort: https.port, close };
  } catch (error) {
    await close();
    throw error;
  }
}

interface ControllerParts {
  store: Store;
  metrics: MetricStore;
  services: Services;
  logger: Logger;
}

function startController({ store, metrics, services, logger }: ControllerParts): () => Promise<void> {
  const { resources } = services;
  const ended = new AbortController();
  const running = startControllers({
    store,
    metrics,
    clock: systemClock,
    random: systemRandom,
    logger,
    verbs: {
      removeFinalizer: (...of) => resources.removeFinalizer(systemPrincipal, ...of),
      delete: (...what) => resources.delete(systemPrincipal, ...what),
      recordEvent: services.recordEvent,
      create: (...what) => resources.createOwned(systemPrincipal, ...what),
      patchSpec: (kind, ref, spec) => resources.patch(systemPrincipal, kind, ref, { spec }),
      patchStatus: (...what) => resources.patchStatus(systemPrincipal, ...what),
    },
    signal: ended.signal,
  });
  return async () => {
    ended.abort();
    await running;
  };
}

/** The agent of this machine knows of the rest what one elsewhere would: what its client tells. */
async function startAgent(
  settings: Settings,
  services: Services,
  logger: Logger,
): Promise<() => Promise<void>> {
  const hostName = ownHostName();
  const parts = settings.fake
    ? (await import("./fake-host-parts.ts")).fakeHostParts(hostName)
    : await (await import("./real-host-parts.ts")).realHostParts(settings, logger);
  const { close, ...host } = parts;
  const remote = createHttpClient({ socketPath: settings.socketPath, retryForMs: agentRetryMs });
  const agent = createAgent({
    ...host,
    ...(settings.fake ? {} : { metadata: { key: await ensureMetadataKey(settings.stateDir, systemRandom) } }),
    hostName,
    client: createLocalClient({ services, remote, clock: systemClock }),
    clock: systemClock,
    random: systemRandom,
    logger: logger.child({ part: "agent" }),
  });
  const ended = new AbortController();
  const running = agent.run(ended.signal);
  return async () => {
    ended.abort();
    await running;
    close();
    remote.close();
  };
}

/** The machine's name as far as it can be a resource's. */
function ownHostName(): string {
  const name = hostname()
    .toLowerCase()
    .split(".", 1)[0]
    ?.replace(/[^a-z0-9-]/g, "-")
    .replace(/^[^a-z]+|-+$/g, "")
    .slice(0, 63);
  return name || "host";
}

function ownVersion(): string {
  const text = readFileSync(ownFile("package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** Now and then forgets what has lapsed. (Controllers forget history and old events.) */
function keepTidy(services: Services, clock: Clock, logger: Logger): () => Promise<void> {
  const ended = new AbortController();
  const running = (async () => {
    for (;;) {
      await clock.sleep(pruneEveryMs, ended.signal);
      try {
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
