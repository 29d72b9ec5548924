/**
 * Work by key: a key is worked on by one worker at a time, is queued at most once, and a hint during its work makes it
 * run once more afterwards. Each lane has its own bound of workers, first come first served. A key held back after a
 * failure runs when the hold ends, or at once on an urgent hint. A key that is neither queued, running nor waiting for
 * a time takes no memory.
 */
import type { Clock } from "../core/clock.ts";
import { TimerHeap } from "./timer-heap.ts";

/** What comes after one piece of work. */
export interface Outcome {
  /** Run again after this long. */
  againAfterMs?: number;
  /** True: hints that are not urgent wait for that time too. */
  hold?: boolean;
}

export interface KeyedQueueOptions {
  clock: Clock;
  /** Workers a lane. */
  concurrency: number;
  lane: (key: string) => string;
  /** Must not reject. */
  work: (key: string) => Promise<Outcome>;
  /** A hint arrived for a key that is being worked on. */
  onHintWhileRunning?: (key: string) => void;
}

interface Entry {
  state: "idle" | "queued" | "running";
  /** Hinted while running. */
  dirty: "no" | "hint" | "urgent";
  held: boolean;
}

interface Lane {
  running: number;
  /** Insertion order is the order of service. */
  waiting: Set<string>;
}

export class KeyedQueue {
  readonly #options: KeyedQueueOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #lanes = new Map<string, Lane>();
  readonly #timers: TimerHeap;
  #running = 0;
  #stopped = false;
  #onIdle: (() => void)[] = [];

  constructor(options: KeyedQueueOptions) {
    this.#options = options;
    this.#timers = new TimerHeap(options.clock, (key) => this.#due(key));
  }

  hint(key: string, urgent = false): void {
    if (this.#stopped) return;
    const entry = this.#entry(key);
    if (entry.state === "running") {
      if (entry.dirty !== "urgent") entry.dirty = urgent ? "urgent" : "hint";
      this.#options.onHintWhileRunning?.(key);
    } else if (entry.state === "idle" && (urgent || !entry.held)) this.#enqueue(key, entry);
  }

  /** Takes no more work and resolves when the work under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timers.clear();
    for (const lane of this.#lanes.values()) lane.waiting.clear();
    if (this.#running > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  /** Keys queued, running or waiting for a time. */
  get size(): number {
    return this.#entries.size;
  }

  #entry(key: string): Entry {
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = { state: "idle", dirty: "no", held: false };
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #due(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry || this.#stopped) return;
    if (entry.state === "idle") this.#enqueue(key, entry);
  }

  #enqueue(key: string, entry: Entry): void {
    entry.state = "queued";
    entry.held = false;
    this.#timers.cancel(key);
    const name = this.#options.lane(key);
    let lane = this.#lanes.get(name);
    if (!lane) {
      lane = { running: 0, waiting: new Set() };
      this.#lanes.set(name, lane);
    }
    lane.waiting.add(key);
    this.#serve(name, lane);
  }

  #serve(name: string, lane: Lane): void {
    for (const key of lane.waiting) {
      if (this.#stopped || lane.running >= this.#options.concurrency) return;
      lane.waiting.delete(key);
      lane.running++;
      this.#running++;
      void this.#run(key, name, lane);
    }
    if (lane.running === 0) this.#lanes.delete(name);
  }

  async #run(key: string, name: string, lane: Lane): Promise<void> {
    const entry = this.#entry(key);
    entry.state = "running";
    entry.dirty = "no";
    const outcome = await this.#options.work(key);
    entry.state = "idle";
    lane.running--;
    this.#running--;
    if (this.#stopped) {
      if (this.#running === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
      return;
    }
    this.#settle(key, entry, outcome);
    this.#serve(name, lane);
  }

  #settle(key: string, entry: Entry, outcome: Outcome): void {
    const { againAfterMs, hold = false } = outcome;
    if (entry.dirty === "urgent" || (entry.dirty === "hint" && !hold)) this.#enqueue(key, entry);
    else if (againAfterMs === undefined) this.#entries.delete(key);
    else {
      entry.held = hold;
      this.#timers.set(key, this.#options.clock.now() + againAfterMs);
    }
  }
}
