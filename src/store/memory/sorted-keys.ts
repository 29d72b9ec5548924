import { compareKeys } from "../keys.ts";

/** A block is cut in two when it has twice as many. */
const keysPerBlock = 256;

/** A set of keys in their order, in blocks: one more moves a few hundred others, however many there are. */
export class SortedKeys {
  /** None is empty, but for the only one. */
  #blocks: string[][] = [[]];

  /** A key that is there already must not be added. */
  add(key: string): void {
    const at = this.#blockOf(key);
    const block = this.#blocks[at] ?? [];
    block.splice(firstAtOrAfter(block, key), 0, key);
    if (block.length >= 2 * keysPerBlock) {
      this.#blocks.splice(at, 1, block.slice(0, keysPerBlock), block.slice(keysPerBlock));
    }
  }

  /** Those that are not before `key`, in order. */
  *from(key: string): Iterable<string> {
    const at = this.#blockOf(key);
    let skip = firstAtOrAfter(this.#blocks[at] ?? [], key);
    for (let index = at; index < this.#blocks.length; index++) {
      const block = this.#blocks[index] ?? [];
      for (let i = skip; i < block.length; i++) yield block[i] ?? "";
      skip = 0;
    }
  }

  /** Takes the others out. */
  keep(wanted: (key: string) => boolean): void {
    const kept = this.#blocks.map((block) => block.filter(wanted)).filter((block) => block.length > 0);
    this.#blocks = kept.length > 0 ? kept : [[]];
  }

  /** The block that has the key, or would have it. */
  #blockOf(key: string): number {
    const after = search(this.#blocks, (block) => compareKeys(block[0] ?? "", key) > 0);
    return Math.max(0, after - 1);
  }
}

function firstAtOrAfter(keys: readonly string[], key: string): number {
  return search(keys, (other) => compareKeys(other, key) >= 0);
}

/** The first index whose item passes, of a list where all that pass come last; its length when none does. */
export function search<T>(items: readonly T[], passes: (item: T) => boolean): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (passes(items[middle] as T)) high = middle;
    else low = middle + 1;
  }
  return low;
}
