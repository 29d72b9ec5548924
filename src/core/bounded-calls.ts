/**
 * Asks places that may never answer, as a network file system whose server is gone: such a call cannot be ended, so nobody
 * waits for it longer than a limit, and its place is not asked again before it has answered.
 */
import type { Clock } from "./clock.ts";

export class BoundedCalls {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #pending = new Set<string>();

  /** `limitMs`: for each call. */
  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** Undefined when `place` does not answer in time, or has an earlier call to answer still. Rejects as `call` does. */
  async ask<Answer>(place: string, call: () => Promise<Answer>): Promise<{ answer: Answer } | undefined> {
    if (this.#pending.has(place)) return undefined;
    this.#pending.add(place);
    const { promise, resolve, reject } = Promise.withResolvers<{ answer: Answer } | undefined>();
    const cancel = this.#clock.after(this.#limitMs, () => resolve(undefined));
    call()
      .then((answer) => resolve({ answer }), reject)
      .finally(() => {
        cancel();
        this.#pending.delete(place);
      });
    return promise;
  }
}
