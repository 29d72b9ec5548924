import type { Clock } from "../../core/clock.ts";

/** A fixed number of slots; the one that has been free for longest is taken first. */
export class SlotPool {
  readonly #free: number[];
  readonly #waiting = new Set<(slot: number) => void>();

  constructor(count: number) {
    this.#free = Array.from({ length: count }, (_, slot) => slot);
  }

  /** Waits for a slot that is about to become free, but no longer than `withinMs`; then undefined. */
  async take(clock: Clock, withinMs: number): Promise<number | undefined> {
    const slot = this.#free.shift();
    if (slot !== undefined) return slot;
    const { promise, resolve } = Promise.withResolvers<number | undefined>();
    this.#waiting.add(resolve);
    const cancel = clock.after(withinMs, () => {
      this.#waiting.delete(resolve);
      resolve(undefined);
    });
    try {
      return await promise;
    } finally {
      cancel();
    }
  }

  give(slot: number): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free.push(slot);
      return;
    }
    this.#waiting.delete(next);
    next(slot);
  }
}
