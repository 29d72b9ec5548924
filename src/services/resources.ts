/**
 * The verbs that all kinds share. Each authorizes the principal, parses what was written with the kind's schema,
 * checks it against the world through the kind's hooks, and commits once, compared with all that it read; a lost race
 * starts it anew.
 *
 * Invariants: a commit happens only when something changes; `generation` grows exactly when `spec` changes; a
 * resource leaves the store when it is marked deleted and has no finalizers, in one commit with the release of all
 * that its creation took.
 */
import { toTimestamp } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { newUid } from "../core/ids.ts";
import { isJsonObject, type Json, type JsonObject, jsonEquals, mergePatch } from "../core/json.ts";
import type { KeyedLock } from "../core/keyed-lock.ts";
import { type Ref, resourceKey, resourcePrefix } from "../kinds/keys.ts";
import { type Kind, labelsSchema, type Metadata, type Resource } from "../kinds/kind.ts";
import { projectKind } from "../kinds/project.ts";
import { fromStored, toStored } from "../kinds/stored.ts";
import type { Revision, Write } from "../store/store.ts";
import type { DeleteMode, KindHooks, World } from "./hooks.ts";
import { type IdempotentCreate, idempotentCreate } from "./idempotency.ts";
import type { Filter, ListQuery, ResourcePage } from "./listing.ts";
import { invalid, parseWith } from "./parse.ts";
import { authorize, type Principal, visible } from "./principal.ts";
import { notBeingDeleted } from "./projects.ts";
import { Reader } from "./reader.ts";
import { checkRef, checkRevision, describe, kindOf, wrongRevision } from "./refs.ts";
import { type Outcome, transact, unchanged } from "./transact.ts";
import type { ResourceEvent, WatchPosition } from "./watching.ts";

/** What a user writes to create or replace a resource; nothing of it is trusted. */
export interface Draft {
  name: string;
  project?: string;
  labels?: unknown;
  spec?: unknown;
}

export interface WriteOptions {
  /** Only while the resource has this revision; 0: only while it does not exist. */
  ifRevision?: Revision;
  /** Creating: the same key and draft within a day give the same resource. */
  idempotencyKey?: string;
}

/** What only Strata itself says of a new resource. */
export interface Origin {
  owner?: Metadata["owner"];
  /** Merged into the status that it starts with. */
  status?: JsonObject;
}

export interface Applied<S, T> {
  resource: Resource<S, T>;
  created: boolean;
}

export type DeleteOptions = WriteOptions & DeleteMode;

export class Resources {
  readonly #world: World;
  readonly #locks: KeyedLock;
  readonly #hooks: ReadonlyMap<string, KindHooks>;
  readonly #reader: Reader;

  /** `hooks` by the name of the kind. */
  constructor(world: World, locks: KeyedLock, hooks: ReadonlyMap<string, KindHooks>) {
    this.#world = world;
    this.#locks = locks;
    this.#hooks = hooks;
    this.#reader = new Reader(world, hooks);
  }

  get<S, T>(principal: Principal, kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T> | undefined> {
    return this.#reader.get(principal, kind, ref);
  }

  /** @throws NotFound, with a name that is near. */
  require<S, T>(principal: Principal, kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T>> {
    return this.#reader.require(principal, kind, ref);
  }

  /** In the order of names. @throws NotFound for a project that is not there, Invalid, Compacted (begin anew). */
  list(principal: Principal, kind: Kind, query: ListQuery): Promise<ResourcePage> {
    return this.#reader.list(principal, kind, query);
  }

  /** What changes from that position on, until aborted. @throws Compacted, here or later: list again. */
  watch(
    principal: Principal,
    kind: Kind,
    query: Filter & { project?: string; from: WatchPosition },
    signal: AbortSignal,
  ): Promise<AsyncIterable<ResourceEvent>> {
    return this.#reader.watch(principal, kind, query, signal);
  }

  /** @throws AlreadyExists, and what the kind's admission throws. */
  async create<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    draft: Draft,
    options: WriteOptions = {},
  ): Promise<Resource<S, T>> {
    const { key, action, labels, spec } = this.#parse(principal, kind, draft, "create");
    const idempotent = this.#idempotent(principal, kind, draft, options);
    return this.#transact(kind, action, this.#group(kind, draft), async () => {
      const first = await idempotent?.find();
      if (first) return unchanged(await this.#replay(kind, first, action));
      if (await this.#world.store.get(key)) throw alreadyExists(kind, draft);
      return this.#insertion(principal, kind, draft, { labels, spec }, action, idempotent);
    });
  }

  /**
   * As `create`, for controllers: the resource goes with its owner and may start with a part of a status.
   * @throws as `create`, and Forbidden for everybody else.
   */
  async createOwned<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    draft: Draft,
    origin: Origin,
  ): Promise<Resource<S, T>> {
    const { key, action, labels, spec } = this.#parse(principal, kind, draft, "create");
    authorize(principal, "operate", kind, draft.project);
    return this.#transact(kind, action, this.#group(kind, draft), async () => {
      if (await this.#world.store.get(key)) throw alreadyExists(kind, draft);
      return this.#insertion(principal, kind, draft, { labels, spec, ...origin }, action);
    });
  }

  /** Creates it, or replaces labels and spec; unchanged is success and no commit. */
  async apply<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    draft: Draft,
    options: WriteOptions = {},
  ): Promise<Applied<S, T>> {
    const { key, action, labels } = this.#parse(principal, kind, draft, "apply");
    return this.#transact(
      kind,
      action,
      this.#group(kind, draft),
      async (): Promise<Outcome<Applied<S, T>>> => {
        const entry = await this.#world.store.get(key);
        if (!entry) {
          if (options.ifRevision) throw wrongRevision(action, options.ifRevision, 0);
          const spec = parseWith(kind.spec, draft.spec ?? {}, "spec", action);
          const insertion = await this.#insertion(principal, kind, draft, { labels, spec }, action);
          return mapResult(insertion, (resource) => ({ resource, created: true }));
        }
        const current = fromStored<Resource<S, T>>(entry);
        if (!visible(principal, current)) throw alreadyExists(kind, draft);
        const spec = parseWith(kind.spec, this.#keep(kind, draft.spec, current.spec), "spec", action);
        const update = await this.#update(kind, current, { labels, spec }, action, options);
        return mapResult(update, (resource) => ({ resource, created: false }));
      },
    );
  }

  /** JSON merge patch (RFC 7396) of labels and spec. @throws NotFound */
  async patch<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    ref: Ref,
    patch: { labels?: Json | undefined; spec?: Json | undefined },
    options: WriteOptions = {},
  ): Promise<Resource<S, T>> {
    checkRef(kind, ref);
    authorize(principal, "write", kind, ref.project);
    const action = `change ${describe(kind, ref)}`;
    return this.#transact(kind, action, resourceKey(kind, ref), async () => {
      const current = await this.#current(principal, kind, ref);
      const { labels: oldLabels } = current.metadata;
      const labels =
        patch.labels === undefined
          ? oldLabels
          : parseWith(labelsSchema, mergePatch(oldLabels, patch.labels), "metadata.labels", action);
      const spec =
        patch.spec === undefined
          ? current.spec
          : parseWith(kind.spec, mergePatch(current.spec as Json, patch.spec), "spec", action);
      return this.#update(kind, current, { labels, spec }, action, options);
    });
  }

  /**
   * Merge patch of the status. For controllers and agents.
   * @throws NotFound also when another resource has its name.
   */
  async patchStatus<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    ref: Ref,
    uid: string,
    patch: JsonObject,
    options: WriteOptions = {},
  ): Promise<Resource<S, T>> {
    checkRef(kind, ref);
    authorize(principal, "operate", kind, ref.project);
    const action = `report the status of ${describe(kind, ref)}`;
    return this.#transact(kind, action, resourceKey(kind, ref), async () => {
      const current = await this.#world.find(kind, ref);
      if (current?.metadata.uid !== uid) throw await this.#reader.notFound(principal, kind, ref);
      checkRevision(action, current, options);
      const merged = mergePatch(current.status as Json, patch);
      const status = parseWith(kind.status, merged, "status", action);
      const errors = this.#hooksOf(kind).validateStatus?.(status, current.status) ?? [];
      if (errors.length > 0) throw invalid(action, errors);
      if (jsonEquals(asJson(status), asJson(current.status))) return unchanged(current);
      return this.#replacement(kind, current, { ...current, status });
    });
  }

  /** For controllers and agents. Absent (resource or finalizer) is success. */
  async removeFinalizer(
    principal: Principal,
    kind: Kind,
    ref: Ref,
    uid: string,
    finalizer: string,
  ): Promise<void> {
    checkRef(kind, ref);
    authorize(principal, "operate", kind, ref.project);
    const action = `take finalizer "${finalizer}" off ${describe(kind, ref)}`;
    await this.#transact(kind, action, this.#group(kind, ref), async (): Promise<Outcome<void>> => {
      const current = await this.#world.find(kind, ref);
      if (current?.metadata.uid !== uid) return unchanged(undefined);
      const finalizers = current.metadata.finalizers.filter((other) => other !== finalizer);
      if (finalizers.length === current.metadata.finalizers.length) return unchanged(undefined);
      const next = { ...current, metadata: { ...current.metadata, finalizers } };
      return { writes: await this.#writeOrRemove(kind, next), result: () => undefined };
    });
  }

  /**
   * Marks it for deletion, together with what it owns; what has no finalizers is gone at once. Again is success.
   * Returns the resource as it waits for its finalizers, or undefined when it is gone.
   * @throws NotFound, Conflict when it is protected or in use.
   */
  async delete<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    ref: Ref,
    options: DeleteOptions = {},
  ): Promise<Resource<S, T> | undefined> {
    checkRef(kind, ref);
    authorize(principal, "write", kind, ref.project);
    const action = `delete ${describe(kind, ref)}`;
    const hooks = this.#hooksOf(kind);
    const left = await this.#transact(kind, action, this.#group(kind, ref), async () => {
      const current = await this.#current(principal, kind, ref);
      checkRevision(action, current, options);
      if (current.metadata.deletedAt !== undefined) return unchanged<Resource<S, T> | undefined>(current);
      const writes = [...((await hooks.closing?.(current, this.#world)) ?? [])];
      await hooks.checkDelete?.(current, this.#world, options);
      const marked = this.#marked(kind, current);
      writes.push(...(await this.#writeOrRemove(kind, marked)));
      writes.push(...((await hooks.deletion?.(current, this.#world)) ?? []));
      for (const dependant of (await hooks.dependants?.(current, this.#world)) ?? []) {
        if (dependant.metadata.deletedAt === undefined)
          writes.push(...(await this.#markDependant(dependant)));
      }
      const gone = marked.metadata.finalizers.length === 0;
      return { writes, result: (revision) => (gone ? undefined : withRevision(marked, revision)) };
    });
    if (left) await hooks.afterDelete?.(left, this);
    return left && this.#reader.present(kind, left);
  }

  // --- the parts of verbs ---

  #parse<S, T>(principal: Principal, kind: Kind<S, T>, draft: Draft, verb: string) {
    const action = `${verb} ${describe(kind, draft)}`;
    checkRef(kind, draft);
    authorize(principal, "write", kind, draft.project);
    const labels = parseWith(labelsSchema, draft.labels ?? {}, "metadata.labels", action);
    const spec = parseWith(kind.spec, draft.spec ?? {}, "spec", action);
    return { key: resourceKey(kind, draft), action, labels, spec };
  }

  async #insertion<S, T>(
    principal: Principal,
    kind: Kind<S, T>,
    draft: Draft,
    content: { labels: Record<string, string>; spec: S } & Origin,
    action: string,
    idempotent?: IdempotentCreate,
  ): Promise<Outcome<Resource<S, T>>> {
    const { project } = draft;
    if (project !== undefined) await this.#requireProject(principal, project, action);
    const resource: Resource<S, T> = {
      kind: kind.name,
      metadata: {
        name: draft.name,
        ...(project === undefined ? {} : { project }),
        uid: newUid(this.#world.random),
        revision: 0,
        generation: 1,
        labels: content.labels,
        createdAt: toTimestamp(this.#world.clock.now()),
        finalizers: [...kind.finalizers],
        ...(content.owner ? { owner: content.owner } : {}),
      },
      spec: content.spec,
      status: initialStatus(kind, content.status, action),
    };
    if (!visible(principal, resource)) {
      throw new StrataError("Forbidden", `cannot ${action}: it would lie outside your project`);
    }
    const admission = (await this.#hooksOf(kind).admit?.(resource, this.#world, action)) ?? {};
    const admitted = { ...resource, status: admission.status ?? resource.status } as Resource<S, T>;
    const key = resourceKey(kind, draft);
    const dependants = (admission.dependants ?? []).map((dependant): Write => {
      const put = resourceKey(kindOf(dependant), dependant.metadata as Ref);
      return { put, value: toStored(dependant), ifRevision: 0 };
    });
    const writes = [
      { put: key, value: toStored(admitted), ifRevision: 0 },
      ...dependants,
      ...(admission.writes ?? []),
      ...(project === undefined ? [] : [notBeingDeleted(project)]),
      ...(idempotent ? [idempotent.write(key, resource.metadata.uid)] : []),
    ];
    return { writes, result: (revision) => this.#reader.present(kind, withRevision(admitted, revision)) };
  }

  async #update<S, T>(
    kind: Kind<S, T>,
    current: Resource<S, T>,
    next: { labels: Record<string, string>; spec: S },
    action: string,
    options: WriteOptions,
  ): Promise<Outcome<Resource<S, T>>> {
    checkRevision(action, current, options);
    const sameSpec = jsonEquals(asJson(next.spec), asJson(current.spec));
    if (sameSpec && jsonEquals(next.labels, current.metadata.labels)) {
      return unchanged(this.#reader.present(kind, current));
    }
    if (current.metadata.deletedAt !== undefined) {
      throw new StrataError("Conflict", `cannot ${action}: it is being deleted`);
    }
    const errors = sameSpec ? [] : kind.validateUpdate(next.spec, current.spec, current.status);
    if (errors.length > 0) throw invalid(action, errors);
    const generation = current.metadata.generation + (sameSpec ? 0 : 1);
    const updated = {
      ...current,
      metadata: { ...current.metadata, labels: next.labels, generation },
      spec: next.spec,
    };
    const hooks = this.#hooksOf(kind);
    const extra = sameSpec ? [] : await hooks.admitUpdate?.(updated, current, this.#world, action);
    return this.#replacement(kind, current, updated, extra);
  }

  #replacement<S, T>(
    kind: Kind<S, T>,
    current: Resource<S, T>,
    next: Resource<S, T>,
    extra: readonly Write[] = [],
  ): Outcome<Resource<S, T>> {
    const put = resourceKey(kind, current.metadata as Ref);
    return {
      writes: [{ put, value: toStored(next), ifRevision: current.metadata.revision }, ...extra],
      result: (revision) => this.#reader.present(kind, withRevision(next, revision)),
    };
  }

  /** Marked for deletion, less the finalizers that nobody needs to act on. */
  #marked<R extends Resource>(kind: Kind, resource: R): R {
    const idle = this.#hooksOf(kind).idleFinalizers?.(resource) ?? [];
    const { metadata } = resource;
    return {
      ...resource,
      metadata: {
        ...metadata,
        deletedAt: toTimestamp(this.#world.clock.now()),
        finalizers: metadata.finalizers.filter((finalizer) => !idle.includes(finalizer)),
      },
    };
  }

  async #markDependant(dependant: Resource): Promise<Write[]> {
    const kind = kindOf(dependant);
    const closing = (await this.#hooksOf(kind).closing?.(dependant, this.#world)) ?? [];
    return [...closing, ...(await this.#writeOrRemove(kind, this.#marked(kind, dependant)))];
  }

  /** Writes the resource, or takes it out when it is marked and waits for nobody. */
  async #writeOrRemove(kind: Kind, resource: Resource): Promise<Write[]> {
    const { metadata } = resource;
    const key = resourceKey(kind, metadata as Ref);
    const ifRevision = metadata.revision;
    if (metadata.deletedAt === undefined || metadata.finalizers.length > 0) {
      return [{ put: key, value: toStored(resource), ifRevision }];
    }
    const released = await this.#hooksOf(kind).removal?.(resource, this.#world);
    return [{ delete: key, ifRevision }, ...(released ?? [])];
  }

  async #current<S, T>(principal: Principal, kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T>> {
    const resource = await this.#world.find(kind, ref);
    if (!resource || !visible(principal, resource)) throw await this.#reader.notFound(principal, kind, ref);
    return resource;
  }

  async #replay<S, T>(
    kind: Kind<S, T>,
    first: { key: string; uid: string },
    action: string,
  ): Promise<Resource<S, T>> {
    const entry = await this.#world.store.get(first.key);
    const resource = entry && fromStored<Resource<S, T>>(entry);
    if (resource?.metadata.uid === first.uid) return this.#reader.present(kind, resource);
    throw new StrataError(
      "NotFound",
      `cannot ${action}: the first request with this Idempotency-Key created it, and it has been deleted since`,
    );
  }

  #idempotent(principal: Principal, kind: Kind, draft: Draft, options: WriteOptions) {
    if (options.idempotencyKey === undefined) return undefined;
    const body = JSON.parse(JSON.stringify([kind.name, { ...draft }])) as Json;
    return idempotentCreate(this.#world.store, this.#world.clock, principal, options.idempotencyKey, body);
  }

  #keep(kind: Kind, draft: unknown, current: unknown): unknown {
    const kept = this.#hooksOf(kind).keptByApply ?? [];
    const written = draft ?? {};
    if (!isJsonObject(written) || !isJsonObject(current)) return written;
    const missing = kept.filter((field) => written[field] === undefined && current[field] !== undefined);
    return { ...written, ...Object.fromEntries(missing.map((field) => [field, current[field]])) };
  }

  async #requireProject(principal: Principal, name: string, action: string): Promise<void> {
    const project = await this.#world.find(projectKind, { name });
    if (!project) throw await this.#reader.projectNotFound(principal, name);
    if (project.metadata.deletedAt !== undefined) {
      throw new StrataError("Conflict", `cannot ${action}: project "${name}" is being deleted`);
    }
  }

  #transact<T>(kind: Kind, action: string, lockKey: string, attempt: () => Promise<Outcome<T>>): Promise<T> {
    const transaction = { store: this.#world.store, locks: this.#locks, action, lockKey };
    return transact(transaction, attempt).finally(() => this.#hooksOf(kind).committed?.());
  }

  /** Losers of a race for anything in the same project queue up together. */
  #group(kind: Kind, ref: Ref): string {
    return resourcePrefix(kind, ref.project);
  }

  #hooksOf(kind: Pick<Kind, "name">): KindHooks {
    return this.#hooks.get(kind.name) ?? {};
  }
}

function initialStatus<S, T>(kind: Kind<S, T>, own: JsonObject | undefined, action: string): T {
  const initial = kind.initialStatus();
  return own ? parseWith(kind.status, mergePatch(initial as Json, own), "status", action) : initial;
}

function alreadyExists(kind: Kind, ref: Ref): StrataError {
  return new StrataError("AlreadyExists", `${describe(kind, ref)} exists already; choose another name`);
}

function mapResult<A, B>(outcome: Outcome<A>, map: (value: A) => B): Outcome<B> {
  return { writes: outcome.writes, result: (revision) => map(outcome.result(revision)) };
}

function withRevision<R extends Resource>(resource: R, revision: Revision): R {
  return { ...resource, metadata: { ...resource.metadata, revision } };
}

/** Specs and statuses came out of JSON, so they are JSON. */
function asJson(value: unknown): Json {
  return value as Json;
}
