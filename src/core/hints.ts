/**
 * Keys handed from whoever notices something to a reader. Each key is held at most once until it is read, so memory
 * is bounded by the number of keys and a burst of changes costs one look.
 */
export class Hints {
  readonly #readers = new Set<Reader>();

  /** Tells every reader; never blocks. */
  hint(key: string): void {
    for (const reader of this.#readers) {
      reader.pending.add(key);
      reader.wake();
    }
  }

  /** Keys hinted from the first `next()` on, until the signal aborts. `first` come before them. */
  async *keys(signal: AbortSignal, first: Iterable<string> = []): AsyncGenerator<string, void> {
    if (signal.aborted) return;
    const reader: Reader = { pending: new Set(), wake: () => {} };
    this.#readers.add(reader);
    const onAbort = () => reader.wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (const key of first) reader.pending.add(key);
      while (!signal.aborted) {
        for (const key of reader.pending) {
          reader.pending.delete(key);
          yield key;
          if (signal.aborted) return;
        }
        await new Promise<void>((resolve) => {
          reader.wake = resolve;
          if (reader.pending.size > 0 || signal.aborted) resolve();
        });
      }
    } finally {
      this.#readers.delete(reader);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

interface Reader {
  pending: Set<string>;
  wake: () => void;
}
