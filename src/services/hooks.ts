import type { Clock } from "../core/clock.ts";
import type { FieldError } from "../core/errors.ts";
import type { Random } from "../core/random.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { Revision, Store, Write } from "../store/store.ts";
import type { ListQuery, ResourcePage } from "./listing.ts";
import type { Principal } from "./principal.ts";

/**
 * What a kind adds to the verbs that all kinds share. Hooks read the store and decide; they write nothing themselves
 * but return writes that join the verb's commit, and they may be called again when that commit loses a race.
 */

/** What hooks may look at. */
export interface World {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  find<S, T>(kind: Kind<S, T>, ref: Ref): Promise<Resource<S, T> | undefined>;
  /** Of one project (or of all: undefined), a page at a time, as of one revision. */
  scan<S, T>(kind: Kind<S, T>, project: string | undefined, at?: Revision): AsyncIterable<Resource<S, T>>;
}

/** What joins the commit that creates a resource. */
export interface Admission<T> {
  status?: T;
  /** Created with it. */
  dependants?: readonly Resource[];
  writes?: readonly Write[];
}

export interface DeleteMode {
  /** Everything in it as well. */
  cascade?: boolean;
  /** It goes with its project: so does whatever still uses it. */
  withProject?: boolean;
}

/** The verbs that a hook may use after a commit. */
export interface Verbs {
  list(principal: Principal, kind: Kind, query: ListQuery): Promise<ResourcePage>;
  delete(principal: Principal, kind: Kind, ref: Ref, mode: DeleteMode): Promise<unknown>;
}

export interface KindHooks<S = unknown, T = unknown> {
  /** Checks a new resource, complete but for the status, against the world. `action` is for messages. */
  admit?(resource: Resource<S, T>, world: World, action: string): Promise<Admission<T>>;
  /** Fields of `spec` that an apply which leaves them out keeps as they are, instead of resetting them. */
  readonly keptByApply?: readonly string[];
  /** After validateUpdate, only when spec changes: writes that join the update. */
  admitUpdate?(
    next: Resource<S, T>,
    previous: Resource<S, T>,
    world: World,
    action: string,
  ): Promise<readonly Write[]>;
  /** Rules of the status beyond its schema. */
  validateStatus?(next: T, previous: T): FieldError[];
  /** Read before checkDelete looks for users; joins the commit that marks it for deletion. */
  closing?(resource: Resource<S, T>, world: World): Promise<readonly Write[]>;
  /** @throws Conflict when it must stay. */
  checkDelete?(resource: Resource<S, T>, world: World, mode: DeleteMode): Promise<void>;
  /** Finalizers that nobody needs to act on, because nothing was ever made. */
  idleFinalizers?(resource: Resource<S, T>): readonly string[];
  /** Marked for deletion in the same commit. */
  dependants?(resource: Resource<S, T>, world: World): Promise<Resource[]>;
  /** Joins the commit that marks it for deletion. */
  deletion?(resource: Resource<S, T>, world: World): Promise<readonly Write[]>;
  /**
   * After the commit that marks it, and again whenever its deletion is asked for anew: what is too much for one
   * commit. Idempotent.
   */
  afterDelete?(resource: Resource<S, T>, verbs: Verbs): Promise<void>;
  /** Joins the commit that takes it out of the store; frees what `admit` took. @throws Conflict when it must wait. */
  removal?(resource: Resource<S, T>, world: World): Promise<readonly Write[]>;
  /** What callers see, where that is less than what is stored. */
  present?(resource: Resource<S, T>): Resource<S, T>;
  /** Told after each commit that wrote such a resource, in this process. */
  committed?(): void;
}
