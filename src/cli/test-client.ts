/**
 * The API in memory, for tests of the command line: stores, lists, watches, and lets a test play the controllers. It
 * knows none of the services' rules but the existence of names.
 */

import type {
  ListOptions,
  MetricSeriesQuery,
  NewResource,
  ResourcePage,
  WatchEvent,
} from "../client/client.ts";
import type { HttpClient } from "../client/http-client.ts";
import { StrataError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { type Json, type JsonObject, jsonEquals, mergePatch } from "../core/json.ts";
import { seededRandom } from "../core/random.ts";
import type { DriftReport } from "../kinds/drift.ts";
import { type Ref, refOfKey, resourceKey, resourcePrefix } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { CurrentMetrics, MetricSeries } from "../kinds/metric-answers.ts";

type Change = { revision: number; key: string; resource: Resource | undefined; uid: string };
/** What a controller or agent would do to a resource that was just written; undefined removes it. */
export type Reaction = (resource: Resource) => Resource | undefined;

export class TestClient {
  readonly resources = new Map<string, Resource>();
  readonly calls: string[] = [];
  /** Fails the next calls, one each. */
  readonly failures: Error[] = [];
  react: Reaction = (resource) => (resource.metadata.deletedAt ? undefined : resource);
  /** What is measured now, by the plural of the kind, and over time. */
  readonly current = new Map<string, CurrentMetrics[]>();
  series: (query: MetricSeriesQuery) => MetricSeries = () => {
    throw new StrataError("NotFound", "nothing is measured here");
  };
  /** Of instances, by name. */
  readonly drifts = new Map<string, DriftReport>();
  readonly #random = seededRandom(1);
  readonly #changes: Change[] = [];
  readonly #wakers = new Set<() => void>();
  #revision = 0;

  /** As the interface, of which only what the command line uses is there. */
  asClient(): HttpClient {
    return this as unknown as HttpClient;
  }

  get(kind: Kind, ref: Ref): Promise<Resource | undefined> {
    return this.#call(`get ${kind.plural} ${ref.name}`, () => this.resources.get(resourceKey(kind, ref)));
  }

  require(kind: Kind, ref: Ref): Promise<Resource> {
    return this.#call(`get ${kind.plural} ${ref.name}`, () => this.#require(kind, ref));
  }

  list(kind: Kind, options: ListOptions): Promise<ResourcePage<Resource>> {
    return this.#call(`list ${kind.plural}`, () => {
      const prefix = resourcePrefix(kind, options.project);
      const items = [...this.resources].filter(
        ([key, resource]) => key.startsWith(prefix) && matches(resource, options),
      );
      return {
        items: items.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item),
        revision: this.#revision,
      };
    });
  }

  listPage(kind: Kind, options: ListOptions): Promise<ResourcePage<Resource>> {
    return this.list(kind, options);
  }

  create(kind: Kind, draft: NewResource): Promise<Resource> {
    return this.#call(`create ${kind.plural} ${draft.name}`, () => {
      if (this.resources.has(resourceKey(kind, draft))) {
        throw new StrataError("AlreadyExists", `${draft.name} exists already`);
      }
      return this.#put(kind, this.#fresh(kind, draft));
    });
  }

  apply(kind: Kind, draft: NewResource): Promise<Resource> {
    return this.#call(`apply ${kind.plural} ${draft.name}`, () => {
      const existing = this.resources.get(resourceKey(kind, draft));
      if (!existing) return this.#put(kind, this.#fresh(kind, draft));
      const spec = kind.spec.parse(draft.spec);
      if (jsonEquals(existing.spec as Json, spec as Json)) return existing;
      const generation = existing.metadata.generation + 1;
      const metadata = { ...existing.metadata, generation, labels: { ...draft.labels } };
      return this.#put(kind, { ...existing, metadata, spec });
    });
  }

  patch(kind: Kind, ref: Ref, patch: { spec?: Json }): Promise<Resource> {
    return this.#call(`patch ${kind.plural} ${ref.name}`, () => {
      const existing = this.#require(kind, ref);
      const spec = kind.spec.parse(mergePatch(existing.spec as Json, patch.spec ?? {}));
      const generation = existing.metadata.generation + 1;
      return this.#put(kind, { ...existing, metadata: { ...existing.metadata, generation }, spec });
    });
  }

  delete(kind: Kind, ref: Ref): Promise<void> {
    return this.#call(`delete ${kind.plural} ${ref.name}`, () => {
      const existing = this.#require(kind, ref);
      const metadata = { ...existing.metadata, deletedAt: "2030-01-01T00:00:00.000Z" };
      this.#put(kind, { ...existing, metadata });
    });
  }

  drift({ name }: Ref): Promise<DriftReport> {
    return this.#call(`drift ${name}`, () => this.#driftOf(name));
  }

  currentMetrics(kind: string, scope: { project?: string }): Promise<CurrentMetrics[]> {
    return this.#call(`current metrics of ${kind}`, () =>
      (this.current.get(kind) ?? []).filter(
        ({ project }) => scope.project === undefined || project === scope.project,
      ),
    );
  }

  metricSeries(query: MetricSeriesQuery): Promise<MetricSeries> {
    return this.#call(`series ${query.metric} of ${query.ref.name}`, () => this.series(query));
  }

  /** Writes a resource as the daemon would have it. */
  seed(kind: Kind, draft: NewResource, status: JsonObject = {}): Resource {
    const resource = this.#fresh(kind, draft);
    return this.#put(kind, { ...resource, status: { ...(resource.status as JsonObject), ...status } });
  }

  async *watch(
    kind: Kind,
    options: ListOptions & { after: number },
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<Resource>> {
    const prefix = resourcePrefix(kind, options.project);
    for (let index = 0; !signal.aborted; ) {
      const change = this.#changes[index];
      if (!change) {
        await this.#nextChange(signal);
        continue;
      }
      index++;
      if (change.revision <= options.after || !change.key.startsWith(prefix)) continue;
      if (change.resource) yield { type: "put", resource: change.resource };
      else yield { type: "delete", ref: refOfKey(kind, change.key), uid: change.uid };
    }
  }

  #nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal.addEventListener("abort", wake);
    });
  }

  async #call<R>(name: string, action: () => R): Promise<R> {
    this.calls.push(name);
    const failure = this.failures.shift();
    if (failure) throw failure;
    await Promise.resolve();
    return action();
  }

  #driftOf(name: string): DriftReport {
    const report = this.drifts.get(name);
    if (!report) throw new StrataError("Conflict", `instance "${name}" has no root to look at`);
    return report;
  }

  #require(kind: Kind, ref: Ref): Resource {
    const found = this.resources.get(resourceKey(kind, ref));
    if (!found) throw new StrataError("NotFound", `there is no ${kind.name} ${ref.name}`);
    return found;
  }

  #fresh(kind: Kind, draft: NewResource): Resource {
    return {
      kind: kind.name,
      metadata: {
        name: draft.name,
        ...(kind.scope === "project" ? { project: draft.project ?? "default" } : {}),
        uid: newUid(this.#random),
        revision: 0,
        generation: 1,
        labels: { ...draft.labels },
        createdAt: "2030-01-01T00:00:00.000Z",
        finalizers: [],
      },
      spec: kind.spec.parse(draft.spec),
      status: kind.initialStatus(),
    };
  }

  #put(kind: Kind, resource: Resource): Resource {
    const { name, project } = resource.metadata;
    const key = resourceKey(kind, { name, ...(project ? { project } : {}) });
    const written = this.#record(key, resource);
    const next = this.react(structuredClone(written));
    if (!next) {
      this.resources.delete(key);
      this.#revision++;
      this.#announce({ revision: this.#revision, key, resource: undefined, uid: resource.metadata.uid });
      return written;
    }
    return jsonEquals(next as unknown as Json, written as unknown as Json)
      ? written
      : this.#record(key, next);
  }

  #record(key: string, resource: Resource): Resource {
    this.#revision++;
    const written = { ...resource, metadata: { ...resource.metadata, revision: this.#revision } };
    this.resources.set(key, written);
    this.#announce({ revision: this.#revision, key, resource: written, uid: resource.metadata.uid });
    return written;
  }

  #announce(change: Change): void {
    this.#changes.push(change);
    for (const wake of [...this.#wakers]) wake();
  }
}

function matches(resource: Resource, options: ListOptions): boolean {
  const labels = Object.entries(options.labels ?? {});
  const state = (resource.status as { state?: string }).state;
  return (
    labels.every(([key, value]) => resource.metadata.labels[key] === value) &&
    (options.state === undefined || options.state === state)
  );
}
