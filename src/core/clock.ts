/**
 * Time comes from here and nowhere else (the gate rejects Date.now and raw timers outside core), so that a
 * simulation can run a year in a second.
 */

/** Milliseconds since the Unix epoch, an integer. */
export type Instant = number;

export interface Clock {
  now(): Instant;
  /** Never goes back; only differences mean anything. Milliseconds, with fractions. */
  monotonicMs(): number;
  /** Resolves after `delayMs`; rejects with the signal's reason when aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after `delayMs`; the returned function cancels. Does not keep the process alive. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep(delayMs, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, delayMs);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** RFC 3339 in UTC, the form of every time stamp in a resource. */
export function toTimestamp(instant: Instant): string {
  return new Date(instant).toISOString();
}

/** The inverse of toTimestamp; undefined when the text is no time. */
export function fromTimestamp(text: string): Instant | undefined {
  const value = Date.parse(text);
  return Number.isNaN(value) ? undefined : value;
}
