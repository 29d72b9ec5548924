/**
 * What failed may be tried again by the daemon, and mostly succeeds then; what cannot succeed stays failed. A person waits
 * a little for the one and not long for the other.
 */
import { StrataError } from "../core/errors.ts";
import type { Patience } from "./watching.ts";

const graceMs = 10_000;

export class FailureGrace {
  /** Aborts, with Unavailable, when something has stayed failed for too long. */
  readonly limits: Patience;
  readonly #abort = new AbortController();
  readonly #failing = new Map<string, { message: string; cancel: () => void }>();

  constructor(limits: Patience) {
    this.limits = { ...limits, signal: AbortSignal.any([limits.signal, this.#abort.signal]) };
  }

  /** `message`: of a failure; undefined when there is none (any more). */
  saw(key: string, message: string | undefined): void {
    const known = this.#failing.get(key);
    if (message === undefined) {
      known?.cancel();
      this.#failing.delete(key);
    } else if (known) known.message = message;
    else {
      const { clock, deadlineMs } = this.limits;
      const leftMs = Math.max(0, deadlineMs - clock.monotonicMs());
      const cancel = clock.after(Math.min(graceMs, leftMs / 2), () =>
        this.#abort.abort(new StrataError("Unavailable", this.#failing.get(key)?.message ?? message)),
      );
      this.#failing.set(key, { message, cancel });
    }
  }

  end(): void {
    for (const { cancel } of this.#failing.values()) cancel();
    this.#failing.clear();
  }
}
