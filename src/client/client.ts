/**
 * The native API, typed. Agents, the command line and tests use nothing else; `http-client.ts` implements it over a
 * Unix socket or HTTPS, `bin/local-client.ts` for the agent of the daemon's own process. Every call may throw a StrataError with the code the server gave, Unavailable when it can't be
 * reached, or the signal's reason.
 */
import type { Json, JsonObject } from "../core/json.ts";
import type { DriftReport } from "../kinds/drift.ts";
import type { ExportFormat } from "../kinds/image.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { CurrentMetrics, MetricSeries } from "../kinds/metric-answers.ts";
import type { MeasuredKind } from "../kinds/metric-names.ts";

export interface ListOptions {
  /** Only this project; left out, all that the caller may see. */
  project?: string;
  /** Each label must have this value. */
  labels?: Readonly<Record<string, string>>;
  /** Only resources whose `status.host` is this. */
  host?: string;
  /** Only resources whose `status.state` is this. */
  state?: string;
}

export interface ResourcePage<R> {
  items: R[];
  /** Pass to `watch` as `after` to miss nothing. */
  revision: number;
  next?: string;
}

export type WatchEvent<R> =
  | { type: "put"; resource: R }
  /** `resource` is the last state the server saw. */
  | { type: "delete"; ref: Ref; uid?: string }
  /** All events up to this revision have been sent. */
  | { type: "bookmark"; revision: number };

export interface NewResource {
  name: string;
  project?: string;
  labels?: Readonly<Record<string, string>>;
  /** As a user writes it: defaults are filled in by the server. */
  spec: JsonObject;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** Change only when the resource still has this revision. */
  ifRevision?: number;
  /** The same key and body within a day give the first answer again. */
  idempotencyKey?: string;
}

export interface MetricReport {
  /** RFC 3339. */
  at: string;
  /** `subject`: a resource's key, `/instances/PROJECT/NAME`. Metrics as kinds/metric-names.ts lists them. */
  samples: readonly { subject: string; uid: string; values: Readonly<Record<string, number>> }[];
}

export interface MetricSeriesQuery {
  kind: MeasuredKind;
  ref: Ref;
  metric: string;
  /** RFC 3339; left out: the last hour. */
  from?: string;
  until?: string;
  /** Left out: about 240 steps. */
  stepSeconds?: number;
}

/** What a session is about. */
export interface SessionSubject {
  project: string;
  name: string;
  uid: string;
}

/** A stream to an instance. */
export type InstanceSession = {
  id: string;
  verb: "exec" | "console" | "log" | "drift" | "access-log";
  /** For `access-log`: the load balancer. */
  instance: SessionSubject;
  parameters: JsonObject;
};

/** The content of an image, or what its build printed. */
export type ImageSession = {
  [Verb in "export" | "build-log"]: {
    id: string;
    verb: Verb;
    image: SessionSubject;
    parameters: JsonObject;
  };
}["export" | "build-log"];

/** One file of a backup. */
export type BackupSession = { id: string; verb: "file"; backup: SessionSubject; parameters: JsonObject };

/** Sent to an agent: open a stream of this kind. */
export type SessionRequest = InstanceSession | ImageSession | BackupSession;

/** A two-way stream of frames: data for channels (0 stdin, 1 stdout, 2 stderr) and control messages. */
export interface Channel {
  send(channel: number, data: Uint8Array): Promise<void>;
  sendControl(message: JsonObject): void;
  /** Nothing more is received until `resume`; the sender is slowed down. For readers that can't keep up. */
  pause(): void;
  resume(): void;
  onData: (channel: number, data: Uint8Array) => void;
  onControl: (message: JsonObject) => void;
  /** Called once, with the reason when it did not end in order. */
  onClose: (error?: Error) => void;
  close(): void;
}

export interface Client {
  get<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T> | undefined>;
  /** @throws NotFound */
  require<S, T>(kind: Kind<S, T>, ref: Ref, options?: CallOptions): Promise<Resource<S, T>>;
  listPage<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { limit?: number; after?: string },
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>>;
  /** All pages of one listing. */
  list<S, T>(
    kind: Kind<S, T>,
    options: ListOptions,
    call?: CallOptions,
  ): Promise<ResourcePage<Resource<S, T>>>;
  create<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>>;
  /** Creates it or replaces labels and spec; unchanged is success and no write. */
  apply<S, T>(kind: Kind<S, T>, resource: NewResource, options?: CallOptions): Promise<Resource<S, T>>;
  /** Merge patch (RFC 7396) of `labels` and `spec`. */
  patch<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    patch: { labels?: Json; spec?: Json },
    options?: CallOptions,
  ): Promise<Resource<S, T>>;
  /**
   * For controllers and agents. Merge patch of the status; only while the resource has this uid.
   * @throws NotFound when it is gone or another has its name.
   */
  patchStatus<S, T>(
    kind: Kind<S, T>,
    ref: Ref,
    uid: string,
    patch: JsonObject,
    options?: CallOptions,
  ): Promise<Resource<S, T>>;
  /** For controllers and agents. Absent (resource or finalizer) is success. */
  removeFinalizer(kind: Kind, ref: Ref, uid: string, finalizer: string, options?: CallOptions): Promise<void>;
  /** Marks it for deletion; what has no finalizers is gone at once. @throws NotFound, Conflict when protected or in use. */
  delete(kind: Kind, ref: Ref, options?: CallOptions): Promise<void>;
  /** Events after that revision. Reconnects by itself; ends when aborted. @throws Compacted: list again. */
  watch<S, T>(
    kind: Kind<S, T>,
    options: ListOptions & { after: number },
    signal: AbortSignal,
  ): AsyncIterable<WatchEvent<Resource<S, T>>>;

  /** For agents: a round of samples, of one moment. Tells which subjects are gone; they were left out. */
  reportMetrics(
    report: MetricReport,
    options?: CallOptions,
  ): Promise<{ recorded: number; unknown: string[] }>;
  /** Values that only the group's application knows, as its metrics `custom/NAME`. `at` (RFC 3339): now. */
  pushMetrics(
    group: Ref,
    metrics: Readonly<Record<string, number>>,
    options?: CallOptions & { at?: string },
  ): Promise<void>;
  /** One metric of one resource over time. */
  metricSeries(query: MetricSeriesQuery, options?: CallOptions): Promise<MetricSeries>;
  /** The newest values of all resources of a kind. */
  currentMetrics(
    kind: MeasuredKind,
    scope: { project?: string },
    options?: CallOptions,
  ): Promise<CurrentMetrics[]>;

  /** Sends a file; returns the name to use in an image's source. */
  upload(
    data: AsyncIterable<Uint8Array>,
    options?: CallOptions,
  ): Promise<{ upload: string; sha256: string; sizeBytes: number }>;
  /** For agents. */
  download(upload: string, options?: CallOptions): Promise<AsyncIterable<Uint8Array>>;

  /** For agents: what a certificate serves with, PEM; undefined while there is nothing. */
  certificateMaterial(
    certificate: Ref,
    options?: CallOptions,
  ): Promise<{ chain: string; privateKey: string } | undefined>;

  /** For agents: what opens a backup repository. @throws NotFound */
  repositorySecrets(
    repository: Ref,
    options?: CallOptions,
  ): Promise<{ key: string; secretAccessKey?: string }>;
  /**
   * One file of a backup's file system, by its absolute path; on the channel as an image's content. Of an instance's: of its
   * root, or of `volume`.
   */
  backupFile(
    backup: Ref,
    file: { path: string; volume?: string | undefined },
    signal: AbortSignal,
  ): Promise<Channel>;

  /** exec, console or log of an instance. */
  openSession(
    verb: InstanceSession["verb"],
    instance: Ref,
    parameters: JsonObject,
    signal: AbortSignal,
  ): Promise<Channel>;
  /** What differs between an instance's root and its image. @throws as the driver's `drift` does; Conflict; Unsupported. */
  drift(instance: Ref, options?: { signal?: AbortSignal }): Promise<DriftReport>;
  /**
   * An image's content in a format. On the channel: data on 1, control messages `progress` {step, fraction?} and, when
   * all was sent, `done` {sizeBytes, sha256}; whatever ends without `done` is incomplete.
   */
  exportImage(image: Ref, format: ExportFormat, signal: AbortSignal): Promise<Channel>;
  /**
   * What the build of an image printed, also of one that failed or is under way; of very long ones the last lines.
   * @throws NotFound when none is kept; Conflict while no host makes the image.
   */
  buildLog(image: Ref, options?: { signal?: AbortSignal }): Promise<string>;
  /** For agents: requests for streams to instances of this host, until aborted. */
  sessionRequests(host: string, signal: AbortSignal): AsyncIterable<SessionRequest>;
  /** For agents: the other end of a session. */
  acceptSession(id: string, signal: AbortSignal): Promise<Channel>;

  version(options?: CallOptions): Promise<{ version: string; apiVersion: string }>;
}
