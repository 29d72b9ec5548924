/**
 * The client for the agent in the daemon's own process: what it asks most goes straight to the services, with no socket, no
 * HTTP and no text in between. Streams, files and whatever else is rare take the way of all other clients. Both keep one
 * contract (client/conformance.ts).
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type {
  CallOptions,
  Client,
  ListOptions,
  MetricReport,
  NewResource,
  ResourcePage,
  WatchEvent,
} from "../client/client.ts";
import { listAll } from "../client/list-all.ts";
import type { Clock } from "../core/clock.ts";
import { hasCode } from "../core/errors.ts";
import type { Json, JsonObject } from "../core/json.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { systemPrincipal } from "../services/principal.ts";
import type { Draft, WriteOptions } from "../services/resources.ts";
import type { Services } from "../services/services.ts";
import { afterRevision } from "../services/watching.ts";

/** How long a call tries again while the store takes nothing, as a client elsewhere does. */
const retryForMs = 10_000;
const firstPauseMs = 50;
const longestPauseMs = 2_000;
/** Of a listing read in one turn of the event loop. */
const itemsPerTurn = 200;

export interface LocalClientParts {
  services: Services;
  /** For everything that has its way through the API. */
  remote: Client;
  clock: Clock;
}

export function createLocalClient(parts: LocalClientParts): Client {
  return new LocalClient(parts);
}

class LocalClient implements Client {
  readonly #services: Services;
  readonly #remote: Client;
  readonly #clock: Clock;

  constructor({ services, remote, clock }: LocalClientParts) {
    this.#services = services;
    this.#remote = remote;
    this.#clock = clock;
  }

  get<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T> | undefined> {
    return this.#ask(options, ({ resources }) => resources.get(systemPrincipal, kind, ref));
  }

  require<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T>> {
    return this.#ask(options, ({ resources }) => resources.require(systemPrincipal, kind, ref));
  }

  async listPage<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { limit?: number; after?: string },
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    // The store answers at once: without this, long listings would be one turn of the event loop, and all else would wait.
    await nextTurn();
    const page = await this.#ask(call, ({ resources }) =>
      resources.list(systemPrincipal, kind as Kind, options),
    );
    return page as ResourcePage<Resource<S, T>>;
  }

  list<S, T>(
    kind: Kind<S, T>,
    options: ListOptions,
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    return listAll((position) => this.listPage(kind, { ...options, limit: itemsPerTurn, ...position }, call));
  }

  create<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>> {
    const { idempotencyKey } = options ?? {};
    const write = idempotencyKey === undefined ? {} : { idempotencyKey };
    const draft = draftOf(resource);
    return this.#ask(options, ({ resources }) => resources.create(systemPrincipal, kind, draft, write));
  }

  apply<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>> {
    const write = writeOptions(options);
    const draft = draftOf(resource);
    return this.#ask(options, async ({ resources }) =>
      write.ifRevision === 0
        ? await resources.create(systemPrincipal, kind, draft)
        : (await resources.apply(systemPrincipal, kind, draft, write)).resource,
    );
  }

  patch<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    patch: { labels?: Json; spec?: Json },
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const sent = asSent(patch);
    const write = writeOptions(options);
    return this.#ask(options, ({ resources }) => resources.patch(systemPrincipal, kind, ref, sent, write));
  }

  patchStatus<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    uid: string,
    patch: JsonObject,
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const sent = asSent(patch);
    const write = writeOptions(options);
    return this.#ask(options, ({ resources }) =>
      resources.patchStatus(systemPrincipal, kind, ref, uid, sent, write),
    );
  }

  removeFinalizer(
    kind: Kind,
    ref: Ref,
    uid: string,
    finalizer: string,
    options?: CallOptions,
  ): Promise<void> {
    return this.#ask(options, ({ resources }) =>
      resources.removeFinalizer(systemPrincipal, kind, ref, uid, finalizer),
    );
  }

  async delete(kind: Kind, ref: Ref, options?: CallOptions): Promise<void> {
    const write = writeOptions(options);
    await this.#ask(options, ({ resources }) => resources.delete(systemPrincipal, kind, ref, write));
  }

  async *watch<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { after: number },
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<Resource<S, T>>> {
    const { after, ...filter } = options;
    if (signal.aborted) return;
    const query = { ...filter, from: afterRevision(after) };
    const events = await this.#services.resources.watch(systemPrincipal, kind as Kind, query, signal);
    yield { type: "bookmark", revision: after };
    for await (const event of events) {
      if (event.type === "put") yield { type: "put", resource: event.resource as Resource<S, T> };
      else yield { type: "delete", ref: event.ref };
    }
  }

  /** Not tried again: the next round is better than an old one. */
  async reportMetrics(
    report: MetricReport,
    options?: CallOptions,
  ): Promise<{ recorded: number; unknown: string[] }> {
    options?.signal?.throwIfAborted();
    return this.#services.metrics.report(systemPrincipal, report);
  }

  certificateMaterial(certificate: Ref, options?: CallOptions) {
    return this.#ask(options, (services) => services.certificateMaterial(systemPrincipal, certificate));
  }

  repositorySecrets(repository: Ref, options?: CallOptions) {
    return this.#ask(options, (services) => services.repositorySecrets(systemPrincipal, repository));
  }

  /** Nothing of what throws Unavailable has happened, so anything may be tried again. */
  async #ask<T>(options: CallOptions | undefined, work: (services: Services) => Promise<T>): Promise<T> {
    const { signal } = options ?? {};
    const deadline = this.#clock.monotonicMs() + retryForMs;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      signal?.throwIfAborted();
      try {
        return await work(this.#services);
      } catch (error) {
        if (!hasCode(error, "Unavailable") || this.#clock.monotonicMs() + pauseMs > deadline) throw error;
      }
      await this.#clock.sleep(pauseMs, signal);
    }
  }

  // --- the way of all other clients ---

  pushMetrics(...call: Parameters<Client["pushMetrics"]>) {
    return this.#remote.pushMetrics(...call);
  }

  metricSeries(...call: Parameters<Client["metricSeries"]>) {
    return this.#remote.metricSeries(...call);
  }

  currentMetrics(...call: Parameters<Client["currentMetrics"]>) {
    return this.#remote.currentMetrics(...call);
  }

  upload(...call: Parameters<Client["upload"]>) {
    return this.#remote.upload(...call);
  }

  download(...call: Parameters<Client["download"]>) {
    return this.#remote.download(...call);
  }

  backupFile(...call: Parameters<Client["backupFile"]>) {
    return this.#remote.backupFile(...call);
  }

  openSession(...call: Parameters<Client["openSession"]>) {
    return this.#remote.openSession(...call);
  }

  drift(...call: Parameters<Client["drift"]>) {
    return this.#remote.drift(...call);
  }

  exportImage(...call: Parameters<Client["exportImage"]>) {
    return this.#remote.exportImage(...call);
  }

  buildLog(...call: Parameters<Client["buildLog"]>) {
    return this.#remote.buildLog(...call);
  }

  sessionRequests(...call: Parameters<Client["sessionRequests"]>) {
    return this.#remote.sessionRequests(...call);
  }

  acceptSession(...call: Parameters<Client["acceptSession"]>) {
    return this.#remote.acceptSession(...call);
  }

  version(...call: Parameters<Client["version"]>) {
    return this.#remote.version(...call);
  }
}

function writeOptions({ ifRevision }: CallOptions = {}): WriteOptions {
  return ifRevision === undefined ? {} : { ifRevision };
}

function draftOf({ name, project, labels, spec }: NewResource): Draft {
  const written = asSent({ labels, spec });
  return { name, ...(project === undefined ? {} : { project }), ...written };
}

/** A copy without what JSON leaves out, as any other client's body: the caller may go on with its own. */
function asSent<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
