import type { Uid } from "../core/ids.ts";

/**
 * Hints waiting for a reader. One uid waits at most once, however often it is pushed, so the queue is bounded by the
 * number of guests and a slow reader costs nothing. Ends, without an error, when the signal aborts.
 */
export class HintQueue implements AsyncIterable<{ uid: Uid }> {
  readonly #waiting = new Set<Uid>();
  readonly #signal: AbortSignal;
  #wake: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#wake?.(), { once: true });
  }

  push(uid: Uid): void {
    this.#waiting.add(uid);
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<{ uid: Uid }> {
    while (!this.#signal.aborted) {
      const [uid] = this.#waiting;
      if (uid !== undefined) {
        this.#waiting.delete(uid);
        yield { uid };
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        if (this.#signal.aborted) resolve();
      });
    }
  }
}
