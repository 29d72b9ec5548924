/**
 * The client of the native API over HTTP: a Unix socket, or HTTPS with a token. Calls that cannot harm when repeated
 * are repeated while the API cannot be reached, so that callers survive a restart of the daemon; a create carries an
 * Idempotency-Key for that. Watches resume where they stopped and miss nothing.
 */

import { type Clock, systemClock } from "../core/clock.ts";
import { hasCode, StrataError } from "../core/errors.ts";
import { encodeBase32 } from "../core/ids.ts";
import { isJsonObject, type Json, type JsonObject } from "../core/json.ts";
import { type Random, randomFraction, systemRandom } from "../core/random.ts";
import { backupKind } from "../kinds/backup.ts";
import { backupRepositoryKind } from "../kinds/backup-repository.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { driftReportSchema } from "../kinds/drift.ts";
import { groupKind } from "../kinds/group.ts";
import { type ExportFormat, imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import type { CurrentMetrics, MetricSeries } from "../kinds/metric-answers.ts";
import type { MeasuredKind } from "../kinds/metric-names.ts";
import { type Token, tokenKind } from "../kinds/token.ts";
import type {
  CallOptions,
  Channel,
  Client,
  InstanceSession,
  ListOptions,
  MetricReport,
  MetricSeriesQuery,
  NewResource,
  ResourcePage,
  SessionRequest,
  WatchEvent,
} from "./client.ts";
import { readEvents } from "./event-source.ts";
import { listAll } from "./list-all.ts";
import { metricSeriesPath, metricsPath } from "./metric-paths.ts";
import { fromProblem } from "./problem.ts";
import { receiveAll } from "./receive-all.ts";
import { collectionPath, listPath, pathOf } from "./resource-paths.ts";
import { type Call, type Endpoint, Transport } from "./transport.ts";

export type HttpClientOptions = Endpoint & {
  /** How long a call tries again while the API cannot be reached; default 0: a call fails at once. */
  retryForMs?: number;
  /** How long one answer may take; default 60 s. Streams have no such bound. */
  timeoutMs?: number;
  clock?: Clock;
  random?: Random;
};

export interface HttpClient extends Client {
  /** The secret is in this answer and nowhere else. */
  createToken(token: NewResource, options?: CallOptions): Promise<{ token: Token; secret: string }>;
  /** Deletes a project with everything in it. */
  deleteProject(name: string, options?: CallOptions & { cascade?: boolean }): Promise<void>;
  /** Closes idle connections. Optional: they don't keep a process alive. */
  close(): void;
}

const defaultTimeoutMs = 60_000;
const listPageItems = 500;
/** A stream that is silent for so long is taken for dead: the API sends a comment every 15 s. */
const silenceMs = 50_000;
const firstPauseMs = 100;
const longestPauseMs = 3_000;

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const {
    retryForMs = 0,
    timeoutMs = defaultTimeoutMs,
    clock = systemClock,
    random = systemRandom,
  } = options;
  const transport = new Transport({ endpoint: options, clock, random, retryForMs, timeoutMs });
  return new HttpClientImpl(transport, clock, random);
}

class HttpClientImpl implements HttpClient {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(transport: Transport, clock: Clock, random: Random) {
    this.#transport = transport;
    this.#clock = clock;
    this.#random = random;
  }

  async get<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T> | undefined> {
    try {
      return await this.require(kind, ref, options);
    } catch (error) {
      if (hasCode(error, "NotFound")) return undefined;
      throw error;
    }
  }

  require<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T>> {
    return this.#resource({ method: "GET", path: pathOf(kind, ref), idempotent: true }, options);
  }

  async listPage<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { limit?: number; after?: string },
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    const path = listPath(kind, options, { limit: options.limit, after: options.after });
    const { json } = await this.#call({ method: "GET", path, idempotent: true }, call);
    return json as unknown as ResourcePage<Resource<S, T>>;
  }

  async list<S, T>(
    kind: Kind<S, T>,
    options: ListOptions,
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>> {
    return listAll((position) =>
      this.listPage(kind, { ...options, limit: listPageItems, ...position }, call),
    );
  }

  create<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>> {
    // With a key, repeating it after a broken connection cannot create two or fail on the first.
    const key = options?.idempotencyKey ?? encodeBase32(this.#random.bytes(20));
    return this.#resource(
      {
        method: "POST",
        path: collectionPath(kind, resource.project),
        headers: { "idempotency-key": key },
        body: bodyOf(kind, resource),
        idempotent: true,
      },
      options,
    );
  }

  apply<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>> {
    const path = pathOf(kind, resource);
    return this.#resource({ method: "PUT", path, body: bodyOf(kind, resource), idempotent: true }, options);
  }

  patch<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    patch: { labels?: Json; spec?: Json },
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const body = {
      ...(patch.labels === undefined ? {} : { metadata: { labels: patch.labels } }),
      ...(patch.spec === undefined ? {} : { spec: patch.spec }),
    };
    return this.#resource(
      { method: "PATCH", path: pathOf(kind, ref), headers: mergePatchHeaders, body, idempotent: true },
      options,
    );
  }

  patchStatus<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    uid: string,
    patch: JsonObject,
    options?: CallOptions,
  ): Promise<Resource<S, T>> {
    const path = `${pathOf(kind, ref)}/status?uid=${encodeURIComponent(uid)}`;
    return this.#resource(
      { method: "PATCH", path, headers: mergePatchHeaders, body: patch, idempotent: true },
      options,
    );
  }

  async removeFinalizer(
    kind: Kind,
    ref: Ref,
    uid: string,
    finalizer: string,
    options?: CallOptions,
  ): Promise<void> {
    const name = encodeURIComponent(finalizer);
    const path = `${pathOf(kind, ref)}/finalizers/${name}?uid=${encodeURIComponent(uid)}`;
    await this.#call({ method: "DELETE", path, idempotent: true }, options);
  }

  async delete(kind: Kind, ref: Ref, options?: CallOptions): Promise<void> {
    await this.#call({ method: "DELETE", path: pathOf(kind, ref), idempotent: true }, options);
  }

  async deleteProject(name: string, options?: CallOptions & { cascade?: boolean }): Promise<void> {
    const path = `/v1/projects/${encodeURIComponent(name)}${options?.cascade ? "?cascade=true" : ""}`;
    await this.#call({ method: "DELETE", path, idempotent: true }, options);
  }

  async *watch<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { after: number },
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<Resource<S, T>>> {
    let position = String(options.after);
    const connect = () => listPath(kind, options, { watch: "true", after: position });
    for await (const { event, data, id } of this.#events(connect, signal)) {
      if (id !== undefined) position = id;
      if (event === "put") yield { type: "put", resource: data as unknown as Resource<S, T> };
      else if (event === "delete") yield { type: "delete", ref: data as unknown as Ref };
      else if (event === "bookmark" && isJsonObject(data)) {
        yield { type: "bookmark", revision: Number(data.revision) };
      }
    }
  }

  async reportMetrics(
    report: MetricReport,
    options?: CallOptions,
  ): Promise<{ recorded: number; unknown: string[] }> {
    // Not repeated: the next round is better than an old one.
    const body = report as unknown as Json;
    const { json } = await this.#call(
      { method: "POST", path: "/v1/metrics", body, idempotent: false },
      options,
    );
    return json as { recorded: number; unknown: string[] };
  }

  async pushMetrics(
    group: Ref,
    metrics: Readonly<Record<string, number>>,
    options?: CallOptions & { at?: string },
  ): Promise<void> {
    const path = `${pathOf(groupKind, group)}/metrics`;
    const body = { metrics: { ...metrics }, ...(options?.at === undefined ? {} : { at: options.at }) };
    await this.#call({ method: "POST", path, body, idempotent: true }, options);
  }

  async metricSeries(query: MetricSeriesQuery, options?: CallOptions): Promise<MetricSeries> {
    const { json } = await this.#call(
      { method: "GET", path: metricSeriesPath(query), idempotent: true },
      options,
    );
    return json as unknown as MetricSeries;
  }

  async currentMetrics(
    kind: MeasuredKind,
    scope: { project?: string },
    options?: CallOptions,
  ): Promise<CurrentMetrics[]> {
    const path = `${metricsPath(scope.project)}/current?kind=${kind}`;
    const { json } = await this.#call({ method: "GET", path, idempotent: true }, options);
    return (json as unknown as { items: CurrentMetrics[] }).items;
  }

  async upload(
    data: AsyncIterable<Uint8Array>,
    options?: CallOptions,
  ): Promise<{ upload: string; sha256: string; sizeBytes: number }> {
    const { json } = await this.#call(
      {
        method: "POST",
        path: "/v1/uploads",
        headers: { "content-type": "application/octet-stream" },
        stream: data,
        idempotent: false,
      },
      options,
    );
    return json as { upload: string; sha256: string; sizeBytes: number };
  }

  async download(upload: string, options?: CallOptions): Promise<AsyncIterable<Uint8Array>> {
    const path = `/v1/uploads/${encodeURIComponent(upload)}`;
    return this.#transport.open({ method: "GET", path, idempotent: true, signal: options?.signal });
  }

  async certificateMaterial(
    certificate: Ref,
    options?: CallOptions,
  ): Promise<{ chain: string; privateKey: string } | undefined> {
    const path = `${pathOf(certificateKind, certificate)}/material`;
    try {
      const { json } = await this.#call({ method: "GET", path, idempotent: true }, options);
      return json as { chain: string; privateKey: string };
    } catch (error) {
      if (hasCode(error, "NotFound")) return undefined;
      throw error;
    }
  }

  async repositorySecrets(repository: Ref, options?: CallOptions) {
    const path = `${pathOf(backupRepositoryKind, repository)}/secrets`;
    const { json } = await this.#call({ method: "GET", path, idempotent: true }, options);
    return json as { key: string; secretAccessKey?: string };
  }

  async backupFile(
    backup: Ref,
    { path, volume }: { path: string; volume?: string | undefined },
    signal: AbortSignal,
  ): Promise<Channel> {
    const query = new URLSearchParams({ path, ...(volume === undefined ? {} : { volume }) });
    return this.#dial(`${pathOf(backupKind, backup)}/file?${query}`, signal);
  }

  async openSession(
    verb: InstanceSession["verb"],
    instance: Ref,
    parameters: JsonObject,
    signal: AbortSignal,
  ): Promise<Channel> {
    const project = encodeURIComponent(instance.project ?? "");
    const name = encodeURIComponent(instance.name);
    const query = `parameters=${encodeURIComponent(JSON.stringify(parameters))}`;
    const plural = (verb === "access-log" ? loadBalancerKind : instanceKind).plural;
    return this.#dial(`/v1/projects/${project}/${plural}/${name}/${verb}?${query}`, signal);
  }

  async drift(instance: Ref, { signal = new AbortController().signal }: { signal?: AbortSignal } = {}) {
    const channel = await this.openSession("drift", instance, {}, signal);
    return driftReportSchema.parse(JSON.parse((await receiveAll(channel, signal)).toString("utf8")));
  }

  async exportImage(image: Ref, format: ExportFormat, signal: AbortSignal): Promise<Channel> {
    const project = encodeURIComponent(image.project ?? "");
    const name = encodeURIComponent(image.name);
    return this.#dial(`/v1/projects/${project}/images/${name}/export?format=${format}`, signal);
  }

  async buildLog(image: Ref, { signal = new AbortController().signal }: { signal?: AbortSignal } = {}) {
    const channel = await this.#dial(`${pathOf(imageKind, image)}/build-log`, signal);
    return (await receiveAll(channel, signal)).toString("utf8");
  }

  async *sessionRequests(host: string, signal: AbortSignal): AsyncGenerator<SessionRequest> {
    const connect = () => `/v1/hosts/${encodeURIComponent(host)}/sessions`;
    for await (const { event, data } of this.#events(connect, signal)) {
      if (event === "session") yield data as unknown as SessionRequest;
    }
  }

  acceptSession(id: string, signal: AbortSignal): Promise<Channel> {
    return this.#dial(`/v1/sessions/${encodeURIComponent(id)}`, signal);
  }

  async createToken(token: NewResource, options?: CallOptions): Promise<{ token: Token; secret: string }> {
    // Not repeated: the answer to a second attempt could not tell the secret.
    const { json } = await this.#call(
      { method: "POST", path: "/v1/tokens", body: bodyOf(tokenKind, token), idempotent: false },
      options,
    );
    return json as unknown as { token: Token; secret: string };
  }

  async version(options?: CallOptions): Promise<{ version: string; apiVersion: string }> {
    const { json } = await this.#call({ method: "GET", path: "/v1/version", idempotent: true }, options);
    return json as { version: string; apiVersion: string };
  }

  close(): void {
    this.#transport.close();
  }

  async #resource<S, T>(call: Call, options: CallOptions | undefined): Promise<Resource<S, T>> {
    const { json } = await this.#call(call, options);
    return json as unknown as Resource<S, T>;
  }

  #call(call: Call, options: CallOptions | undefined) {
    const { ifRevision, signal } = options ?? {};
    const condition =
      ifRevision === undefined
        ? {}
        : ifRevision === 0
          ? { "if-none-match": "*" }
          : { "if-match": `"${ifRevision}"` };
    return this.#transport.call({ ...call, headers: { ...call.headers, ...condition }, signal });
  }

  /**
   * Events of a stream that is opened anew, at the path that `connect` gives then, whenever it ends. Returns when the
   * signal aborts.
   * @throws what the API answers or sends as an `error`, except that it is unavailable.
   */
  async *#events(
    connect: () => string,
    signal: AbortSignal,
  ): AsyncGenerator<{ event: string; data: Json; id: string | undefined }> {
    let pauseMs = firstPauseMs;
    while (!signal.aborted) {
      const silence = new SilenceLimit(this.#clock, signal);
      try {
        const call = { method: "GET", path: connect(), idempotent: true, signal: silence.signal };
        const body = await this.#transport.open(call);
        for await (const received of readEvents(body)) {
          silence.heard();
          pauseMs = firstPauseMs;
          if (!received) continue;
          const data = JSON.parse(received.data) as Json;
          if (received.event === "error") throw fromProblem(data, 0, "the stream");
          yield { event: received.event, data, id: received.id };
        }
      } catch (error) {
        if (signal.aborted) return;
        const passing =
          !(error instanceof StrataError) || hasCode(error, "Unavailable", "Timeout", "Internal");
        if (!passing) throw error;
      } finally {
        silence.release();
      }
      try {
        await this.#clock.sleep(pauseMs * (0.5 + randomFraction(this.#random) / 2), signal);
      } catch {
        return;
      }
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
  }

  async #dial(path: string, signal: AbortSignal): Promise<Channel> {
    // Most callers never need it, and it is not small.
    const { dialChannel } = await import("./channel.ts");
    return dialChannel(this.#transport, path, this.#clock, signal);
  }
}

/** Aborts a stream on which nothing came for too long: its other end may be gone without a word. */
class SilenceLimit {
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #silent = new AbortController();
  #cancel: () => void = () => {};

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock;
    this.signal = AbortSignal.any([signal, this.#silent.signal]);
    this.heard();
  }

  heard(): void {
    this.#cancel();
    this.#cancel = this.#clock.after(silenceMs, () =>
      this.#silent.abort(new StrataError("Unavailable", "the stream fell silent")),
    );
  }

  release(): void {
    this.#cancel();
    // Also closes the connection of a stream whose reader stopped early.
    this.#silent.abort();
  }
}

const mergePatchHeaders = { "content-type": "application/merge-patch+json" };

function bodyOf(kind: Pick<Kind, "name">, resource: NewResource): Json {
  const { name, project, labels, spec } = resource;
  const metadata = {
    name,
    ...(project === undefined ? {} : { project }),
    ...(labels === undefined ? {} : { labels: { ...labels } }),
  };
  return { kind: kind.name, metadata, spec };
}
