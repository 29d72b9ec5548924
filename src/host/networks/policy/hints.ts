/** Networks to look at again, for any number of readers; each reader gets each once, however often it was hinted at. */
export class Hints {
  readonly #readers = new Set<{ pending: Set<string>; wake: () => void }>();

  give(uid: string): void {
    for (const reader of this.#readers) {
      reader.pending.add(uid);
      reader.wake();
    }
  }

  async *read(signal: AbortSignal): AsyncGenerator<{ uid: string }, void> {
    const reader = { pending: new Set<string>(), wake: () => {} };
    const onAbort = () => reader.wake();
    this.#readers.add(reader);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        for (const uid of reader.pending) {
          reader.pending.delete(uid);
          yield { uid };
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
