/**
 * Runs a reconciler: its watches feed a keyed queue, each turn of a key is a series of rounds (observe, plan, report,
 * execute) until a plan has no actions. Errors back off per key, with jitter, and are forgotten by the first round
 * without one; a source that ends is started again. Cost grows with hints, never with the number of keys; resync
 * spreads its looks over time.
 *
 * Invariants: one round a key at a time; a round's signal aborts when the runner stops or its purpose is gone; nothing
 * is started after the runner's signal aborted; `run` resolves when all that was started has ended.
 */
import type { Clock } from "../core/clock.ts";
import { describeError, StrataError } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import { type Random, randomFraction } from "../core/random.ts";
import { type Backoff, backoffMs } from "./backoff.ts";
import { KeyedQueue, type Outcome } from "./keyed-queue.ts";
import type { Plan, Reconciler, Watch } from "./reconciler.ts";
import { untilAborted } from "./until-aborted.ts";

export interface RunnerOptions {
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Keys at work at a time, a lane. Default 8. */
  concurrency?: number;
  /** Between tries of a key that fails. Default 200 ms to 60 s. */
  backoff?: Backoff;
  /** Each key with a status is looked at again about this often, without a hint. Default ten minutes. */
  resyncMs?: number;
  hooks?: RunnerHooks;
}

/** For simulations: called after each step; what it throws fails the round. */
export interface RunnerHooks {
  afterReport?(reconciler: string, key: string): void | Promise<void>;
  afterAction?(reconciler: string, key: string, action: unknown): void | Promise<void>;
}

/** Rounds with actions in one turn; a plan that never runs out of actions is a bug, and must not spin. */
const maxRoundsATurn = 32;
const defaultBackoff: Backoff = { minMs: 200, maxMs: 60_000 };
const watchBackoff: Backoff = { minMs: 100, maxMs: 10_000 };
const defaultResyncMs = 10 * 60_000;

/** Runs until the signal aborts and everything under way has ended. Never rejects. */
export async function runReconciler<World, Action, Status>(
  reconciler: Reconciler<World, Action, Status>,
  options: RunnerOptions,
  signal: AbortSignal,
): Promise<void> {
  await new Runner(reconciler, options, signal).run();
}

/** The reason of a round's signal when a hint made the round pointless. */
class ObsoleteRound extends Error {}

interface Round<World> {
  abort: AbortController;
  world: World | undefined;
}

class Runner<World, Action, Status> {
  readonly #reconciler: Reconciler<World, Action, Status>;
  readonly #options: RunnerOptions;
  readonly #logger: Logger;
  readonly #signal: AbortSignal;
  readonly #queue: KeyedQueue;
  readonly #rounds = new Map<string, Round<World>>();
  /** Failures in a row. */
  readonly #failures = new Map<string, number>();

  constructor(reconciler: Reconciler<World, Action, Status>, options: RunnerOptions, signal: AbortSignal) {
    this.#reconciler = reconciler;
    this.#options = options;
    this.#logger = options.logger.child({ reconciler: reconciler.name });
    this.#signal = signal;
    this.#queue = new KeyedQueue({
      clock: options.clock,
      concurrency: options.concurrency ?? 8,
      lane: (key) => reconciler.lane?.(key) ?? "",
      work: (key) => this.#turn(key),
      onHintWhileRunning: (key) => this.#abortIfObsolete(key),
    });
  }

  async run(): Promise<void> {
    const onAbort = () => {
      for (const round of this.#rounds.values()) round.abort.abort(this.#signal.reason);
    };
    this.#signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.all(this.#reconciler.watches.map((watch) => this.#follow(watch)));
      if (!this.#signal.aborted) await untilAborted(this.#signal);
    } finally {
      await this.#queue.stop();
      this.#signal.removeEventListener("abort", onAbort);
    }
  }

  async #follow(watch: Watch): Promise<void> {
    let failures = 0;
    while (!this.#signal.aborted) {
      let error: unknown;
      try {
        for await (const key of watch.keys(this.#signal)) {
          if (this.#signal.aborted) return;
          failures = 0;
          this.#queue.hint(key, watch.urgent);
        }
      } catch (caught) {
        error = caught;
      }
      if (this.#signal.aborted) return;
      failures++;
      const delayMs = backoffMs(watchBackoff, failures, this.#options.random);
      this.#logger.warn(
        { watch: watch.name, delayMs, error: describeError(error) },
        "a watch ended; again soon",
      );
      await this.#options.clock.sleep(delayMs, this.#signal).catch(() => {});
    }
  }

  async #turn(key: string): Promise<Outcome> {
    for (let count = 0; count < maxRoundsATurn; count++) {
      if (this.#signal.aborted) return {};
      const round: Round<World> = { abort: new AbortController(), world: undefined };
      this.#rounds.set(key, round);
      try {
        const plan = await this.#round(key, round);
        this.#failures.delete(key);
        if (plan.actions.length === 0) return this.#next(plan);
      } catch (error) {
        if (this.#signal.aborted) return {};
        if (!(round.abort.signal.reason instanceof ObsoleteRound)) return await this.#fail(key, round, error);
      } finally {
        this.#rounds.delete(key);
      }
    }
    const error = new StrataError("Internal", `${this.#reconciler.name} found no end of actions for ${key}`);
    return await this.#fail(key, undefined, error);
  }

  async #round(key: string, round: Round<World>): Promise<Plan<Action, Status>> {
    const { signal } = round.abort;
    const world = await this.#reconciler.observe(key, signal);
    round.world = world;
    const plan = this.#reconciler.plan(world, this.#options.clock.now());
    const { reportAfterMs, actions } = plan;
    if (reportAfterMs === undefined || actions.length === 0) {
      await this.#report(key, world, plan, signal);
      await this.#execute(key, actions, signal);
    } else {
      await this.#reportBeside(key, world, plan, reportAfterMs, this.#execute(key, actions, signal), signal);
    }
    return plan;
  }

  async #reportBeside(
    key: string,
    world: World,
    plan: Plan<Action, Status>,
    afterMs: number,
    actions: Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    let report: Promise<void> | undefined;
    const cancel = this.#options.clock.after(afterMs, () => {
      report = this.#report(key, world, plan, signal);
      report.catch(() => {}); // looked at below
    });
    // Both have ended when a round ends, also when one fails: nothing of it may run beside the next.
    const [end] = await Promise.allSettled([actions]);
    cancel();
    const [told] = await Promise.allSettled([report]);
    for (const { status, ...rest } of [end, told])
      if (status === "rejected" && "reason" in rest) throw rest.reason;
  }

  async #report(key: string, world: World, plan: Plan<Action, Status>, signal: AbortSignal): Promise<void> {
    if (plan.status === undefined || !this.#reconciler.report) return;
    signal.throwIfAborted();
    await this.#reconciler.report(key, world, plan.status, signal);
    await this.#options.hooks?.afterReport?.(this.#reconciler.name, key);
  }

  async #execute(key: string, actions: readonly Action[], signal: AbortSignal): Promise<void> {
    for (const action of actions) {
      signal.throwIfAborted();
      await this.#reconciler.execute(action, signal);
      await this.#options.hooks?.afterAction?.(this.#reconciler.name, key, action);
    }
  }

  #next(plan: Plan<Action, Status>): Outcome {
    const resyncMs = this.#options.resyncMs ?? defaultResyncMs;
    const jittered = resyncMs * (0.9 + randomFraction(this.#options.random) / 5);
    const againAfterMs = Math.min(
      plan.recheckAfterMs ?? Number.POSITIVE_INFINITY,
      plan.status === undefined ? Number.POSITIVE_INFINITY : jittered,
    );
    return Number.isFinite(againAfterMs) ? { againAfterMs: Math.ceil(againAfterMs) } : {};
  }

  async #fail(key: string, round: Round<World> | undefined, error: unknown): Promise<Outcome> {
    const attempt = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, attempt);
    const retryAfterMs = backoffMs(this.#options.backoff ?? defaultBackoff, attempt, this.#options.random);
    this.#logger.warn({ key, attempt, retryAfterMs, error: describeError(error) }, "a round failed");
    try {
      const failure = { world: round?.world, error, attempt, retryAfterMs };
      await this.#reconciler.failed?.(key, failure, this.#signal);
    } catch (second) {
      this.#logger.warn({ key, error: describeError(second) }, "cannot tell about a failed round");
    }
    return { againAfterMs: retryAfterMs, hold: true };
  }

  #abortIfObsolete(key: string): void {
    const round = this.#rounds.get(key);
    if (round?.world === undefined || !this.#reconciler.obsolete?.(key, round.world)) return;
    round.abort.abort(new ObsoleteRound(`the round of ${key} has lost its purpose`));
  }
}
