import { StrataError } from "../core/errors.ts";
import { didYouMean } from "../core/spelling.ts";
import { type Ref, resourceKey, resourcePrefix } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { projectKind } from "../kinds/project.ts";
import { fromStored } from "../kinds/stored.ts";
import { type Revision, storeLimits } from "../store/store.ts";
import type { KindHooks, World } from "./hooks.ts";
import {
  decodePosition,
  encodePosition,
  type Filter,
  hasFilter,
  type ListQuery,
  listLimits,
  matches,
  type ResourcePage,
} from "./listing.ts";
import { invalid } from "./parse.ts";
import { authorize, isClusterAdmin, noSuchProject, type Principal, visible } from "./principal.ts";
import { checkRef, describe } from "./refs.ts";
import { type ResourceEvent, resourceEvents, type WatchPosition } from "./watching.ts";
import { someNames } from "./world.ts";

/** Names looked through for one that is near. */
const namesForHints = 200;

/** The reading verbs: what a principal may not see is, to it, not there. */
export class Reader {
  readonly #world: World;
  readonly #hooks: ReadonlyMap<string, KindHooks>;

  /** `hooks` by the name of the kind. */
  constructor(world: World, hooks: ReadonlyMap<string, KindHooks>) {
    this.#world = world;
    this.#hooks = hooks;
  }

  async get<S, T>(principal: Principal, kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T> | undefined> {
    checkRef(kind, ref);
    authorize(principal, "read", kind, ref.project);
    const resource = await this.#world.find(kind, ref);
    if (!resource || !visible(principal, resource)) return undefined;
    return this.present(kind, resource);
  }

  /** @throws NotFound, with a name that is near. */
  async require<S, T>(principal: Principal, kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T>> {
    return (
      (await this.get(principal, kind, ref)) ?? Promise.reject(await this.notFound(principal, kind, ref))
    );
  }

  /** In the order of names. @throws NotFound for a project that is not there, Invalid, Compacted (begin anew). */
  async list(principal: Principal, kind: Kind, query: ListQuery): Promise<ResourcePage> {
    const prefix = await this.#prefix(principal, kind, query.project);
    const limit = query.limit ?? listLimits.defaultItems;
    if (!Number.isInteger(limit) || limit < 1 || limit > listLimits.maxItems) {
      const allowed = `1 to ${listLimits.maxItems}`;
      throw invalid(`list ${kind.plural}`, [{ path: "limit", message: "is out of bounds", allowed }]);
    }
    let position = query.after === undefined ? undefined : decodePosition(query.after, prefix);
    const items: Resource[] = [];
    for (let scanned = 0; ; ) {
      const page = await this.#world.store.list(prefix, {
        limit: hasFilter(query) ? storeLimits.pageEntries : limit - items.length,
        ...position,
      });
      let looked = 0;
      for (const entry of page.entries) {
        if (items.length === limit) break;
        looked++;
        position = { after: entry.key, at: page.revision };
        const resource = fromStored(entry);
        if (matches(resource, query) && visible(principal, resource)) {
          items.push(this.present(kind, resource));
        }
      }
      scanned += looked;
      const more = page.next !== undefined || looked < page.entries.length;
      if (!more || !position) return { items, revision: page.revision };
      if (items.length === limit || scanned >= listLimits.maxScanned) {
        return { items, revision: page.revision, next: encodePosition(position) };
      }
    }
  }

  /** What changes from that position on, until aborted. @throws Compacted, here or later: list again. */
  async watch(
    principal: Principal,
    kind: Kind,
    query: Filter & { project?: string; from: WatchPosition },
    signal: AbortSignal,
  ): Promise<AsyncIterable<ResourceEvent>> {
    const prefix = await this.#prefix(principal, kind, query.project);
    // The watch itself would say so only once it is read.
    const after = Math.max(0, query.from.revision - 1);
    await this.#world.store.list(prefix, { limit: 1, at: after });
    const bounded = kind.scope === "cluster" && principal.project !== undefined;
    const known = bounded ? await this.#visibleKeys(principal, kind, after) : undefined;
    return resourceEvents(this.#world.store.watch(prefix, after, signal), query.from, {
      wanted: (resource) => matches(resource, query) && visible(principal, resource),
      present: (resource) => this.present(kind, resource),
      kind,
      ...(known ? { known } : {}),
    });
  }

  /** Of the keys that a list or watch looks at. */
  async #prefix(principal: Principal, kind: Kind, project: string | undefined): Promise<string> {
    if (project !== undefined) {
      checkRef(kind, { project, name: "any" });
      authorize(principal, "read", kind, project);
      if (!(await this.#world.find(projectKind, { name: project }))) {
        throw await this.projectNotFound(principal, project);
      }
      return resourcePrefix(kind, project);
    }
    authorize(principal, "read", kind);
    return resourcePrefix(kind, kind.scope === "project" ? principal.project : undefined);
  }

  async #visibleKeys(principal: Principal, kind: Kind, at: Revision): Promise<Set<string>> {
    const keys = new Set<string>();
    for await (const resource of this.#world.scan(kind, undefined, at)) {
      if (visible(principal, resource)) keys.add(resourceKey(kind, resource.metadata as Ref));
    }
    return keys;
  }

  /** The error for a resource that is not there, or not for this principal. */
  async notFound(principal: Principal, kind: Kind, ref: Ref): Promise<StrataError> {
    if (ref.project !== undefined && !(await this.#world.find(projectKind, { name: ref.project }))) {
      return this.projectNotFound(principal, ref.project);
    }
    const mayHint = kind.scope === "project" || isClusterAdmin(principal);
    const names = mayHint ? await someNames(this.#world, kind, ref.project, namesForHints) : [];
    return new StrataError("NotFound", `there is no ${describe(kind, ref)}${didYouMean(ref.name, names)}`);
  }

  async projectNotFound(principal: Principal, name: string): Promise<StrataError> {
    if (!isClusterAdmin(principal)) return noSuchProject(name);
    const names = await someNames(this.#world, projectKind, undefined, namesForHints);
    return new StrataError("NotFound", `${noSuchProject(name).message}${didYouMean(name, names)}`);
  }

  /** As callers see it. */
  present<S, T>(kind: Kind<S, T>, resource: Resource<S, T>): Resource<S, T> {
    const present = this.#hooks.get(kind.name)?.present;
    return present ? (present(resource) as Resource<S, T>) : resource;
  }
}
