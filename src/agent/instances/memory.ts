import type { HealthChecks } from "../health/health-checks.ts";
import type { ServiceProbes } from "./probes.ts";
import type { Size, Sizing, StartAttempt } from "./world.ts";

/** What this process remembers of instances, by uid. Nothing here need survive it. */
export class InstanceMemory {
  readonly attempts = new Map<string, StartAttempt>();
  readonly probes: ServiceProbes;
  readonly checks: HealthChecks;
  readonly #finalized = new Set<string>();
  readonly #sizes = new Map<string, Size>();
  readonly #refusals = new Map<string, NonNullable<Sizing["refused"]>>();

  constructor(probes: ServiceProbes, checks: HealthChecks) {
    this.probes = probes;
    this.checks = checks;
  }

  /** All that was here of it is gone; what the API still says of it is old. */
  finalize(uid: string): void {
    this.#finalized.add(uid);
  }

  isFinalized(uid: string): boolean {
    return this.#finalized.has(uid);
  }

  /** The running guest was given this size. */
  resized(uid: string, size: Size): void {
    this.#sizes.set(uid, size);
    this.#refusals.delete(uid);
  }

  /** The running guest cannot have it. */
  refuseSize(uid: string, size: Size, message: string): void {
    this.#refusals.set(uid, { size, message });
  }

  sizing(uid: string): Pick<Sizing, "applied" | "refused"> {
    return { applied: this.#sizes.get(uid), refused: this.#refusals.get(uid) };
  }

  /** The guest starts anew. */
  forgetSize(uid: string): void {
    this.#sizes.delete(uid);
    this.#refusals.delete(uid);
  }

  /** The API knows it no more. */
  forget(uid: string): void {
    this.attempts.delete(uid);
    this.forgetSize(uid);
    this.#finalized.delete(uid);
    this.probes.forget(uid);
    this.checks.forget(uid);
  }
}
