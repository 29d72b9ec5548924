/**
 * The shape of everything that acts: observe, plan, execute. `plan` is pure: same world and time, same plan. `execute`
 * is idempotent and decides nothing. Events are hints to look again; the runner calls with every key at the start, on
 * each hint and at a slow resync, one call a key at a time.
 */
import type { Instant } from "../core/clock.ts";

export interface Plan<Action, Status> {
  /** What to report; undefined where there is nothing to report on. */
  status: Status | undefined;
  /** In order; the first that fails ends the round and the key is tried again with back-off. */
  actions: readonly Action[];
  /** Look again after this long, without a hint. */
  recheckAfterMs?: number;
}

/** A source of keys to look at. Ends only when the signal aborts; errors make the runner start it again. */
export interface Watch {
  readonly name: string;
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
}
