import type { Clock } from "../../core/clock.ts";

export const sourceLimits = {
  /** Open at once, of one guest. */
  connections: 32,
  /**
   * Requests a second in the long run, and how many may come at once; a new connection counts as one. cloud-init makes
   * about 70 at boot, each on a connection of its own.
   */
  requestsPerSecond: 100,
  burst: 400,
  /** Sources remembered; beyond that, those without a connection are forgotten. */
  remembered: 2048,
} as const;

interface Source {
  connections: number;
  /** Requests that it may still make, at the time of `at`. */
  credit: number;
  at: number;
}

/** What one guest may ask of the service, so that none keeps it busy for all. */
export class SourceLimits {
  readonly #clock: Clock;
  readonly #sources = new Map<string, Source>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** False: one connection too many, or too many of late. Otherwise `disconnect` has to follow. */
  connect(address: string): boolean {
    if (this.#sources.size >= sourceLimits.remembered) this.#forgetIdle();
    const source = this.#source(address);
    if (source.connections >= sourceLimits.connections || !this.#spend(source)) return false;
    source.connections += 1;
    return true;
  }

  disconnect(address: string): void {
    const source = this.#sources.get(address);
    if (source) source.connections -= 1;
  }

  /** False: one request too many for now. */
  request(address: string): boolean {
    return this.#spend(this.#source(address));
  }

  #spend(source: Source): boolean {
    const now = this.#clock.monotonicMs();
    const earned = ((now - source.at) / 1000) * sourceLimits.requestsPerSecond;
    source.credit = Math.min(sourceLimits.burst, source.credit + earned);
    source.at = now;
    if (source.credit < 1) return false;
    source.credit -= 1;
    return true;
  }

  #source(address: string): Source {
    const known = this.#sources.get(address);
    if (known) return known;
    const source = { connections: 0, credit: sourceLimits.burst, at: this.#clock.monotonicMs() };
    this.#sources.set(address, source);
    return source;
  }

  #forgetIdle(): void {
    for (const [address, { connections }] of this.#sources) {
      if (connections === 0) this.#sources.delete(address);
    }
  }
}
