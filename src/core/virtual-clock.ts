import type { Clock, Instant } from "./clock.ts";

interface Timer {
  at: number;
  order: number;
  fire: () => void;
}

/** A clock that moves only when told to: timers due fire in order of their time, then of their creation. */
export class VirtualClock implements Clock {
  /** Of the monotonic clock; `now` is less by how much it was set back. */
  #now: Instant;
  #backMs = 0;
  #order = 0;
  #timers: Timer[] = [];

  constructor(start: Instant = 1_700_000_000_000) {
    this.#now = start;
  }

  now(): Instant {
    return this.#now - this.#backMs;
  }

  monotonicMs(): number {
    return this.#now;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, delayMs), order: this.#order++, fire: callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const cancel = this.after(delayMs, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Time of the next timer, if any. */
  nextAt(): Instant | undefined {
    const next = this.#next();
    return next && next.at - this.#backMs;
  }

  /** Moves to `instant`, firing what falls due and letting promises settle after each timer. */
  async advanceTo(instant: Instant): Promise<void> {
    const end = instant + this.#backMs;
    for (let next = this.#next(); next && next.at <= end; next = this.#next()) {
      this.#now = next.at;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      next.fire();
      await settle();
    }
    this.#now = Math.max(this.#now, end);
    await settle();
  }

  /** As when somebody sets the time back: timers go off as late as they would have. */
  setBack(deltaMs: number): void {
    this.#backMs += deltaMs;
  }

  async advance(deltaMs: number): Promise<void> {
    await this.advanceTo(this.now() + deltaMs);
  }

  #next(): Timer | undefined {
    let best: Timer | undefined;
    for (const timer of this.#timers) {
      if (!best || timer.at < best.at || (timer.at === best.at && timer.order < best.order)) best = timer;
    }
    return best;
  }
}

/** Lets every promise callback that is ready run, including those they make ready. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
