import { type FieldError, StrataError } from "../core/errors.ts";
import { didYouMean } from "../core/spelling.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { type Store, storeLimits, type Write } from "../store/store.ts";
import type { World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { someNames } from "./world.ts";

/**
 * What a spec names must exist, and must stay while it is named, under any race. Whoever begins to name a resource
 * writes `/references/UID` of it and asserts that `/closed/UID` is absent; whoever deletes it reads the first before
 * it looks for users, compares it in its commit, and writes the second. So of a deletion and a new user that did not
 * see one another only one commits, and users do not get in each other's way.
 */

/** Names offered when one is wrong. */
const namesInMessage = 50;
/** How long `/closed/UID` is kept: longer than any commit under way that read the resource before. */
const closedKeptMs = 10 * 60_000;
const closedPrefix = "/closed/";

/** Looks up what one spec names, and collects an error for each name that leads nowhere. */
export class References {
  readonly errors: FieldError[] = [];
  readonly #world: World;
  readonly #project: string;
  readonly #writes = new Map<string, Write>();

  constructor(world: World, project: string) {
    this.#world = world;
    this.#project = project;
  }

  /** The resource of that name in the project; else undefined and an error at `path`. */
  async find<S, T>(kind: Kind<S, T>, name: string, path: string): Promise<Resource<S, T> | undefined> {
    const found = await this.peek(kind, name, path);
    if (found) this.#name(found.metadata.uid, {});
    return found;
  }

  /** As `find`, for what may go while it is named. */
  async peek<S, T>(kind: Kind<S, T>, name: string, path: string): Promise<Resource<S, T> | undefined> {
    const found = await this.#world.find(kind, { project: this.#project, name });
    if (found && found.metadata.deletedAt === undefined) return found;
    if (found) this.errors.push({ path, message: `names "${name}", which is being deleted` });
    else this.errors.push(await this.#missing(kind as Kind, name, path));
    return undefined;
  }

  /**
   * As `find`, for rules about all users of the resource: the commit fails when anyone else began to name it after
   * this. To be called before those users are looked at.
   */
  async findAlone<S, T>(kind: Kind<S, T>, name: string, path: string): Promise<Resource<S, T> | undefined> {
    const found = await this.find(kind, name, path);
    if (!found) return undefined;
    const entry = await this.#world.store.get(referenceKey(found.metadata.uid));
    this.#name(found.metadata.uid, { ifRevision: entry?.revision ?? 0 });
    return found;
  }

  /** What is created in the same commit is named by others that are created with it. */
  nameNew({ metadata }: Pick<Resource, "metadata">): void {
    this.#name(metadata.uid, {});
  }

  /** @throws Invalid with all errors so far. */
  check(action: string): void {
    if (this.errors.length > 0) throw invalid(action, this.errors);
  }

  /** For the commit of what names them. */
  writes(): Write[] {
    return [...this.#writes.values()];
  }

  #name(uid: string, condition: { ifRevision?: number }): void {
    this.#writes.set(uid, { put: referenceKey(uid), value: {}, ...condition });
    this.#writes.set(`${uid} exists`, { delete: closedKey(uid), ifRevision: 0 });
  }

  async #missing(kind: Kind, name: string, path: string): Promise<FieldError> {
    const names = await someNames(this.#world, kind, this.#project, namesInMessage);
    const plural = kind.plural.replace(/-/g, " ");
    const cluster = kind.scope === "cluster";
    const among = cluster ? plural : `${plural} of project "${this.#project}"`;
    const none = cluster ? `none: there are no ${plural} yet` : `none: the project has no ${plural} yet`;
    return {
      path,
      message: `names "${name}", which is not among the ${among}${didYouMean(name, names)}`,
      allowed: names.length > 0 ? names.join(", ") : none,
    };
  }
}

/** To be read before users are looked for; joins the commit that marks the resource for deletion. */
export async function closeReferences(resource: Resource, world: World): Promise<Write[]> {
  const { uid } = resource.metadata;
  const key = referenceKey(uid);
  const entry = await world.store.get(key);
  return [
    { delete: key, ifRevision: entry?.revision ?? 0 },
    { put: closedKey(uid), value: { at: world.clock.now() } },
  ];
}

/**
 * For specs that may name more resources of a kind than one commit can compare: one key for all of that kind in a
 * project, rewritten by whoever begins to name some, before looking them up, and by whoever deletes one.
 */
export async function rewriteGuard(kind: Kind, project: string, world: World): Promise<Write> {
  const key = guardKey(kind, project);
  const entry = await world.store.get(key);
  return { put: key, value: {}, ifRevision: entry?.revision ?? 0 };
}

export function guardKey(kind: Pick<Kind, "plural">, project: string): string {
  return `/references/${kind.plural}/${project}`;
}

/** False: nobody ever named it. True: somebody did, and perhaps still does. */
export async function wasNamed(resource: Resource, world: World): Promise<boolean> {
  return (await world.store.get(referenceKey(resource.metadata.uid))) !== undefined;
}

/** Forgets deletions that are long past. */
export async function pruneClosed(store: Store, now: number): Promise<void> {
  let after: string | undefined;
  do {
    const page = await store.list(closedPrefix, {
      limit: storeLimits.pageEntries,
      ...(after === undefined ? {} : { after }),
    });
    const old = page.entries.filter(({ value }) => (value as { at: number }).at + closedKeptMs <= now);
    for (let i = 0; i < old.length; i += storeLimits.writesPerCommit) {
      const batch = old.slice(i, i + storeLimits.writesPerCommit);
      await store.commit(batch.map((entry) => ({ delete: entry.key })));
    }
    after = page.next;
  } while (after !== undefined);
}

/** Collects names of users for the message of a refused deletion; more than these would not help. */
export const usersInMessage = 5;

/** @throws Conflict naming the users, unless there are none. */
export function refuseWhileUsed(what: string, users: readonly string[], advice = "delete those first"): void {
  if (users.length === 0) return;
  const shown = users.slice(0, usersInMessage).join(", ");
  const more = users.length > usersInMessage ? " and more" : "";
  throw new StrataError(
    "Conflict",
    `cannot delete ${what}: ${shown}${more} ${users.length === 1 ? "uses" : "use"} it; ${advice}`,
  );
}

function referenceKey(uid: string): string {
  return `/references/${uid}`;
}

function closedKey(uid: string): string {
  return `${closedPrefix}${uid}`;
}
