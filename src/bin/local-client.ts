/**
 * The client for the agent in the daemon's own process: what it asks most goes straight to the services, with no socket, no
 * HTTP and no text in between. Streams, files and whatever else is rare take the way of all other clients. Both keep one
 * contract (client/conformance.ts).
 */
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
import type { Json, JsonObject } from "../core/json.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { listLimits } from "../services/listing.ts";
import { systemPrincipal } from "../services/principal.ts";
import type { Draft, WriteOptions } from "../services/resources.ts";
import type { Services } from "../services/services.ts";
import { afterRevision } from "../services/watching.ts";

export function createLocalClient(services: Services, remote: Client): Client {
  return new LocalClient(services, remote);
}

class LocalClient implements Client {
  readonly #services: Services;
  readonly #remote: Client;

  constructor(services: Services, remote: Client) {
    this.#services = services;
    this.#remote = remote;
  }

  async get<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T> | undefined> {
    options?.signal?.throwIfAborted();
    return this.#services.resources.get(systemPrincipal, kind, ref);
  }

  async require<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T>> {
    options?.signal?.throwIfAborted();
    return this.#services.resources.require(systemPrincipal, kind, ref);
  }

  async listPage<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { limit?: number; after?: string },
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    call?.signal?.throwIfAborted();
    const page = await this.#services.resources.list(systemPrincipal, kind as Kind, options);
    return page as ResourcePage<Resource<S, T>>;
  }

  async list<S, T>(
    kind: Kind<S, T>,
    options: ListOptions,
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    return listAll((position) =>
      this.listPage(kind, { ...options, limit: listLimits.maxItems, ...position }, call),
    );
  }

  async create<S, T>(
    kind: Kind<S, T>,
    resource: NewResource,
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const { idempotencyKey } = options ?? {};
    const write = idempotencyKey === undefined ? {} : { idempotencyKey };
    options?.signal?.throwIfAborted();
    return this.#services.resources.create(systemPrincipal, kind, draftOf(resource), write);
  }

  async apply<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>> {
    const write = writeOptions(options);
    const { resources } = this.#services;
    if (write.ifRevision === 0) return resources.create(systemPrincipal, kind, draftOf(resource));
    return (await resources.apply(systemPrincipal, kind, draftOf(resource), write)).resource;
  }

  async patch<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    patch: { labels?: Json; spec?: Json },
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const write = writeOptions(options);
    return this.#services.resources.patch(systemPrincipal, kind, ref, asSent(patch), write);
  }

  async patchStatus<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    uid: string,
    patch: JsonObject,
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const write = writeOptions(options);
    return this.#services.resources.patchStatus(systemPrincipal, kind, ref, uid, asSent(patch), write);
  }

  async removeFinalizer(
    kind: Kind,
    ref: Ref,
    uid: string,
    finalizer: string,
    options?: CallOptions,
  ): Promise<void> {
    options?.signal?.throwIfAborted();
    await this.#services.resources.removeFinalizer(systemPrincipal, kind, ref, uid, finalizer);
  }

  async delete(kind: Kind, ref: Ref, options?: CallOptions): Promise<void> {
    await this.#services.resources.delete(systemPrincipal, kind, ref, writeOptions(options));
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

  async reportMetrics(
    report: MetricReport,
    options?: CallOptions,
  ): Promise<{ recorded: number; unknown: string[] }> {
    options?.signal?.throwIfAborted();
    return this.#services.metrics.report(systemPrincipal, report);
  }

  async certificateMaterial(certificate: Ref, options?: CallOptions) {
    options?.signal?.throwIfAborted();
    return this.#services.certificateMaterial(systemPrincipal, certificate);
  }

  async repositorySecrets(repository: Ref, options?: CallOptions) {
    options?.signal?.throwIfAborted();
    return this.#services.repositorySecrets(systemPrincipal, repository);
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

function writeOptions(options: CallOptions = {}): WriteOptions {
  options.signal?.throwIfAborted();
  return options.ifRevision === undefined ? {} : { ifRevision: options.ifRevision };
}

function draftOf({ name, project, labels, spec }: NewResource): Draft {
  const written = asSent({ labels, spec });
  return { name, ...(project === undefined ? {} : { project }), ...written };
}

/** A copy without what JSON leaves out, as any other client's body: the caller may go on with its own. */
function asSent<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
