import type { Clock, Instant } from "../core/clock.ts";

/** Timers of the platform fire at once when the delay does not fit into 31 bits; a far time is approached in steps. */
const maxDelayMs = 24 * 60 * 60_000;

/**
 * Many wake-ups on one timer: keys with times, the earliest first. At most one time a key; an earlier one replaces a
 * later one. Setting and firing cost O(log n), whatever the number of keys.
 */
export class TimerHeap {
  readonly #clock: Clock;
  readonly #fire: (key: string) => void;
  /** A binary heap by `at`, then `order`. Entries that `#due` no longer names are skipped when they come up. */
  #heap: Timer[] = [];
  readonly #due = new Map<string, Timer>();
  #order = 0;
  #armedFor: Instant | undefined;
  #disarm: () => void = () => {};

  constructor(clock: Clock, fire: (key: string) => void) {
    this.#clock = clock;
    this.#fire = fire;
  }

  /** Fires the key at `at`, or when it was set to fire earlier. */
  set(key: string, at: Instant): void {
    const current = this.#due.get(key);
    if (current && current.at <= at) return;
    const timer = { key, at, order: this.#order++ };
    this.#due.set(key, timer);
    this.#push(timer);
    this.#arm();
  }

  cancel(key: string): void {
    this.#due.delete(key);
    // What was replaced or cancelled stays in the heap until it comes up; rebuild before that doubles the memory.
    if (this.#heap.length > 64 && this.#heap.length > 4 * this.#due.size) {
      this.#heap = [...this.#due.values()].sort(compare);
    }
  }

  has(key: string): boolean {
    return this.#due.has(key);
  }

  /** Forgets everything. */
  clear(): void {
    this.#due.clear();
    this.#heap = [];
    this.#disarm();
    this.#armedFor = undefined;
  }

  #arm(): void {
    const first = this.#first();
    if (!first) return;
    if (this.#armedFor !== undefined && this.#armedFor <= first.at) return;
    this.#disarm();
    this.#armedFor = first.at;
    const delayMs = Math.min(maxDelayMs, Math.max(0, first.at - this.#clock.now()));
    this.#disarm = this.#clock.after(delayMs, () => this.#ring());
  }

  #ring(): void {
    this.#armedFor = undefined;
    const now = this.#clock.now();
    for (let first = this.#first(); first && first.at <= now; first = this.#first()) {
      this.#pop();
      this.#due.delete(first.key);
      this.#fire(first.key);
    }
    this.#arm();
  }

  /** The earliest that still counts. */
  #first(): Timer | undefined {
    for (let top = this.#heap[0]; top; top = this.#heap[0]) {
      if (this.#due.get(top.key) === top) return top;
      this.#pop();
    }
    return undefined;
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let index = heap.push(timer) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent] as Timer;
      if (compare(above, timer) <= 0) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && compare(heap[child + 1] as Timer, heap[child] as Timer) < 0) child++;
      const below = heap[child] as Timer;
      if (compare(below, last) >= 0) break;
      heap[index] = below;
      index = child;
    }
    heap[index] = last;
  }
}

interface Timer {
  key: string;
  at: Instant;
  order: number;
}

function compare(a: Timer, b: Timer): number {
  return a.at - b.at || a.order - b.order;
}
