import type { ServiceProbes } from "./probes.ts";
import type { StartAttempt } from "./world.ts";

/** What this process remembers of instances, by uid. Nothing here need survive it. */
export class InstanceMemory {
  readonly attempts = new Map<string, StartAttempt>();
  readonly probes: ServiceProbes;
  readonly #finalized = new Set<string>();

  constructor(probes: ServiceProbes) {
    this.probes = probes;
  }

  /** All that was here of it is gone; what the API still says of it is old. */
  finalize(uid: string): void {
    this.#finalized.add(uid);
  }

  isFinalized(uid: string): boolean {
    return this.#finalized.has(uid);
  }

  /** The API knows it no more. */
  forget(uid: string): void {
    this.attempts.delete(uid);
    this.#finalized.delete(uid);
    this.probes.forget(uid);
  }
}
