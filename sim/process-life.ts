/**
 * A process that can die at any line. Everything it reaches the world with (API, drivers, host, clock) goes through
 * `guard`: before and after each call it may die, and from then on no call of it takes effect or returns, as with a
 * process that was killed.
 */
import type { Clock } from "../src/core/clock.ts";

export interface ProcessLifeOptions {
  /** Asked before and after each call: does it die here? */
  dies: (call: string) => boolean;
  onDeath: () => void;
}

export class ProcessLife {
  readonly #options: ProcessLifeOptions;
  #alive = true;
  readonly #abort = new AbortController();

  constructor(options: ProcessLifeOptions) {
    this.#options = options;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** For the process's own orderly end, and to free what its calls wait for once it is dead. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#abort.abort(new Error("the process was killed"));
    this.#options.onDeath();
  }

  /** Ends in order: what is under way may finish. */
  stop(): void {
    this.#abort.abort(new Error("the process stops"));
  }

  /** The same object, as this process reaches it. */
  guard<T extends object>(target: T, label: string): T {
    return new Proxy(target, {
      get: (_target, name) => {
        const member = Reflect.get(target, name, target) as unknown;
        if (typeof member === "function") {
          return (...args: unknown[]) =>
            this.#call(`${label}.${String(name)}`, () => member.apply(target, args));
        }
        return member;
      },
    });
  }

  clock(clock: Clock): Clock {
    return {
      now: () => clock.now(),
      monotonicMs: () => clock.monotonicMs(),
      sleep: (delayMs, signal) => this.#settle("sleep", clock.sleep(delayMs, signal), false),
      after: (delayMs, callback) =>
        clock.after(delayMs, () => {
          if (this.#alive) callback();
        }),
    };
  }

  #call(label: string, call: () => unknown): unknown {
    if (this.#deadAt(label)) return never();
    const result = call();
    if (result instanceof Promise) return this.#settle(label, result, true);
    if (isAsyncIterable(result)) return this.#iterate(label, result);
    return result;
  }

  async #settle<T>(label: string, promise: Promise<T>, mayDie: boolean): Promise<T> {
    try {
      const value = await promise;
      if (mayDie ? this.#deadAt(label) : !this.#alive) return await never();
      return isAsyncIterable(value) ? (this.#iterate(label, value) as T) : value;
    } catch (error) {
      if (!this.#alive) return await never();
      throw error;
    }
  }

  async *#iterate<T>(label: string, source: AsyncIterable<T>): AsyncGenerator<T> {
    for await (const value of source) {
      if (!this.#alive) await never();
      yield value;
      if (this.#deadAt(label)) await never();
    }
    if (!this.#alive) await never();
  }

  #deadAt(label: string): boolean {
    if (this.#alive && this.#options.dies(label)) this.kill();
    return !this.#alive;
  }
}

function never<T>(): Promise<T> {
  return new Promise(() => {});
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
