import type { Sample } from "./metric-store.ts";

type Listener = (subjects: ReadonlySet<string>) => void;

/** Who wants to know that something was recorded. */
export class RecordListeners {
  readonly #listeners = new Set<Listener>();

  add(listener: Listener): () => void {
    // A function of its own, so that the same listener may be added twice.
    const own: Listener = (subjects) => listener(subjects);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  tell(samples: readonly Sample[]): void {
    if (this.#listeners.size === 0 || samples.length === 0) return;
    const subjects = new Set(samples.map((sample) => sample.subject));
    for (const listener of [...this.#listeners]) listener(subjects);
  }
}
