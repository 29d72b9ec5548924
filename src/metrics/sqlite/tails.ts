/**
 * What series have not in their chunks yet, in typed arrays: blocks of a few samples, chained for each series and used again.
 * A plain array of numbers for each of thousands of series would take twice as much, and leave holes in the heap.
 */

/** Where one series' samples are: its first and its last block, -1 for none. */
export interface Tail {
  first: number;
  last: number;
  length: number;
}

/** At one sample in 10 s, a block holds the samples of 80 s; half of one is unused, on average. */
const samplesPerBlock = 8;
const blocksPerSegment = 2_048;
const none = -1;

export function emptyTail(): Tail {
  return { first: none, last: none, length: 0 };
}

export class TailPool {
  /** Seconds since the epoch, as Uint32. */
  readonly #seconds: Uint32Array[] = [];
  readonly #values: Float64Array[] = [];
  /** By block: the one after it in its chain. */
  readonly #next: Int32Array[] = [];
  #firstFree = none;

  append(tail: Tail, second: number, value: number): void {
    const place = tail.length % samplesPerBlock;
    if (place === 0) {
      const block = this.#take();
      if (tail.last === none) tail.first = block;
      else this.#link(tail.last, block);
      tail.last = block;
    }
    this.#write(tail.last, place, second, value);
    tail.length++;
  }

  /** The second and the value of its newest sample. */
  newest(tail: Tail): readonly [second: number, value: number] | undefined {
    if (tail.length === 0) return undefined;
    return this.#read(tail.last, (tail.length - 1) % samplesPerBlock);
  }

  /** In order. */
  *samples(tail: Tail): Iterable<readonly [second: number, value: number]> {
    let block = tail.first;
    for (let index = 0; index < tail.length; index++) {
      const place = index % samplesPerBlock;
      if (index > 0 && place === 0) block = this.#after(block);
      yield this.#read(block, place);
    }
  }

  /** Leaves nothing; its blocks are for others. */
  clear(tail: Tail): void {
    if (tail.last !== none) {
      this.#link(tail.last, this.#firstFree);
      this.#firstFree = tail.first;
    }
    Object.assign(tail, emptyTail());
  }

  #take(): number {
    if (this.#firstFree === none) this.#grow();
    const block = this.#firstFree;
    this.#firstFree = this.#after(block);
    this.#link(block, none);
    return block;
  }

  #grow(): void {
    const begin = this.#next.length * blocksPerSegment;
    this.#seconds.push(new Uint32Array(blocksPerSegment * samplesPerBlock));
    this.#values.push(new Float64Array(blocksPerSegment * samplesPerBlock));
    this.#next.push(Int32Array.from({ length: blocksPerSegment }, (_, index) => begin + index + 1));
    this.#link(begin + blocksPerSegment - 1, none);
    this.#firstFree = begin;
  }

  #after(block: number): number {
    return this.#next[Math.floor(block / blocksPerSegment)]?.[block % blocksPerSegment] ?? none;
  }

  #link(block: number, next: number): void {
    const segment = this.#next[Math.floor(block / blocksPerSegment)];
    if (segment) segment[block % blocksPerSegment] = next;
  }

  #write(block: number, place: number, second: number, value: number): void {
    const segment = Math.floor(block / blocksPerSegment);
    const at = (block % blocksPerSegment) * samplesPerBlock + place;
    const [seconds, values] = [this.#seconds[segment], this.#values[segment]];
    if (!seconds || !values) return;
    seconds[at] = second;
    values[at] = value;
  }

  #read(block: number, place: number): readonly [number, number] {
    const segment = Math.floor(block / blocksPerSegment);
    const at = (block % blocksPerSegment) * samplesPerBlock + place;
    return [this.#seconds[segment]?.[at] ?? 0, this.#values[segment]?.[at] ?? 0];
  }
}
