import { type IpFamily, widthOf } from "../core/ip-range.ts";
import { KeyedLock } from "../core/keyed-lock.ts";
import type { Store } from "../store/store.ts";

/**
 * Finds an address that nobody has taken. A taken address is a key: a prefix and the address in hexadecimal, so that
 * keys sort like addresses and a gap is found by reading neighbours. A taken key cannot be taken again, whoever tries
 * (ifRevision 0).
 *
 * Search goes on where the last one ended and wraps round: usually one small read, however many addresses are taken,
 * and an address rests as long as possible before its next use. That place is only a hint, kept in memory.
 */

/** Keys read at once while looking for a gap. */
const scanPage = 64;

/** Addresses from `first` to `last`, each taken by the key `prefix` + addressKey. */
export interface Space {
  family: IpFamily;
  prefix: string;
  first: bigint;
  last: bigint;
}

/** Hexadecimal digits for all of the address: as text in the order of the addresses. */
export function addressKey(family: IpFamily, value: bigint): string {
  return value.toString(16).padStart(widthOf(family) / 4, "0");
}

export function parseAddressKey(key: string): bigint {
  return BigInt(`0x${key}`);
}

export class FreeAddresses {
  readonly #store: Store;
  readonly #locks = new KeyedLock();
  /** By space: where the next search starts. */
  readonly #next = new Map<string, bigint>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** One that was free when looked at; not the same one twice in a row. Undefined when all are taken. */
  find(space: Space): Promise<bigint | undefined> {
    const id = `${space.prefix}${addressKey(space.family, space.first)}`;
    return this.#locks.run(id, () => this.#find(id, space));
  }

  async #find(id: string, space: Space): Promise<bigint | undefined> {
    const { first, last } = space;
    if (first > last) return undefined;
    const hint = this.#next.get(id) ?? first;
    const start = hint < first || hint > last ? first : hint;
    const found = (await this.#gap(space, start, last)) ?? (await this.#gap(space, first, start - 1n));
    if (found === undefined) return undefined;
    this.#next.set(id, found === last ? first : found + 1n);
    return found;
  }

  /** The lowest free address of [from, to]. */
  async #gap({ family, prefix }: Space, from: bigint, to: bigint): Promise<bigint | undefined> {
    const keyOf = (value: bigint) => `${prefix}${addressKey(family, value)}`;
    for (let candidate = from; candidate <= to; ) {
      const page = await this.#store.list(prefix, {
        limit: candidate === from ? 1 : scanPage,
        ...(candidate === 0n ? {} : { after: keyOf(candidate - 1n) }),
      });
      for (const entry of page.entries) {
        if (parseAddressKey(entry.key.slice(prefix.length)) !== candidate) break;
        candidate++;
      }
      const covered = page.entries.at(-1)?.key === keyOf(candidate - 1n);
      if (!covered || page.next === undefined) return candidate <= to ? candidate : undefined;
    }
    return undefined;
  }
}
