/**
 * The shape of everything that acts: observe, plan, execute. `plan` is pure: same world and time, same plan. `execute`
 * is idempotent and decides nothing. Events are hints to look again; the runner calls with every key at the start, on
 * each hint and at a slow resync, one call a key at a time.
 */
import type { Instant } from "../core/clock.ts";

export interface Plan<Action, Status> {
  /** What to report; undefined where there is nothing to report on (such a key is not looked at again by resync). */
  status: Status | undefined;
  /** In order; the first that fails ends the round and the key is tried again with back-off. */
  actions: readonly Action[];
  /** Look again after this long, without a hint. */
  recheckAfterMs?: number;
  /**
   * The report is only news to people: it is written beside the actions once they have taken this long, and not at all
   * when they succeed sooner, because the next round has newer news. Left out, it is written before the first action:
   * for what a restart relies on. Without actions it is always written.
   */
  reportAfterMs?: number;
}

/** A source of keys to look at. Ends only when the signal aborts; errors make the runner start it again. */
export interface Watch {
  readonly name: string;
  /** True: these hints cut a key's back-off short, because someone changed what is wanted. Default false. */
  readonly urgent?: boolean;
  keys(signal: AbortSignal): AsyncIterable<string>;
}

export interface Reconciler<World, Action, Status> {
  readonly name: string;
  readonly watches: readonly Watch[];
  /** Reads the world for one key. No side effects. */
  observe(key: string, signal: AbortSignal): Promise<World>;
  plan(world: World, now: Instant): Plan<Action, Status>;
  execute(action: Action, signal: AbortSignal): Promise<void>;
  /** Writes the status if it differs from the one observed; called before the actions of a round. */
  report?(key: string, world: World, status: Status, signal: AbortSignal): Promise<void>;
  /**
   * A round of this key ended in an error and is repeated after `retryAfterMs`: the place to tell people. `world` is
   * undefined when observing failed. What it throws is logged only.
   */
  failed?(key: string, failure: Failure<World>, signal: AbortSignal): Promise<void>;
  /**
   * Asked on a hint while a round of this key runs, with the world of that round. True aborts the round's signal and
   * starts over at once: for long actions whose purpose is gone.
   */
  obsolete?(key: string, world: World): boolean;
  /** Keys of different lanes do not wait for each other; each lane has its own bound. Default: one lane. */
  lane?(key: string): string;
}

export interface Failure<World> {
  world: World | undefined;
  error: unknown;
  /** 1 for the first in a row. */
  attempt: number;
  retryAfterMs: number;
}
