/**
 * Numbers of the generations of a network's policy (forward-rules.ts). Connections keep theirs for as long as they and the
 * kernel live, also over a restart of this process, so no number may come twice in that time: it is the time since the
 * machine booted, in tenths of a second. They suffice for 13 years.
 */
import { uptime } from "node:os";

const tickMs = 100;

export class Generations {
  readonly #uptimeMs: () => number;
  #last = 0;

  constructor(uptimeMs = () => uptime() * 1000) {
    this.#uptimeMs = uptimeMs;
  }

  /** Larger than all before. To be called less often than once in 100 ms, or a next process might repeat some. */
  next(): number {
    this.#last = Math.max(this.#last + 1, Math.floor(this.#uptimeMs() / tickMs));
    return this.#last;
  }
}
