import { StrataError } from "../core/errors.ts";
import type { Random } from "../core/random.ts";
import type { Store, Write } from "../store/store.ts";
import { addressKey, formatAddress, lastOf, parseAddressKey, parseCidr, type Range } from "./ipv4.ts";
import { KeyedLock } from "./keyed-lock.ts";

/**
 * Which addresses of a network are taken: one key each, `/addresses/NETWORK-UID/` and the address in hexadecimal, so
 * that keys sort like addresses and a gap is found by reading neighbours. A taken key cannot be taken again, whoever
 * tries (ifRevision 0).
 *
 * Search goes on where the last one ended and wraps round: usually one small read, however many addresses are taken,
 * and an address rests as long as possible before its next use. That place is only a hint, kept in memory.
 */

/** Network address and gateway at the start, broadcast at the end. */
const reservedAtStart = 2;
const reservedAtEnd = 1;
/** Keys read at once while looking for a gap. */
const scanPage = 64;

export interface Taken {
  ipAddress: string;
  macAddress: string;
  write: Write;
}

export class Addresses {
  readonly #store: Store;
  readonly #random: Random;
  readonly #locks = new KeyedLock();
  /** By network uid: where the next search starts. */
  readonly #next = new Map<string, number>();

  constructor(store: Store, random: Random) {
    this.#store = store;
    this.#random = random;
  }

  /**
   * An address that was free when looked at; it is the holder's once `write` is committed.
   * @throws CapacityExceeded when none is free.
   */
  async take(
    network: { uid: string; name: string; cidr: string },
    holder: { project: string; instance: string; uid: string },
  ): Promise<Taken> {
    const range = rangeOf(network.cidr);
    const address = await this.#locks.run(network.uid, () => this.#findFree(network.uid, range));
    if (address === undefined) {
      const count = lastOf(range) - range.first + 1 - reservedAtStart - reservedAtEnd;
      throw new StrataError(
        "CapacityExceeded",
        `network "${network.name}" has no free address: all ${count} of ${network.cidr} are taken; ` +
          "delete instances, or create a network with a larger range and use that",
      );
    }
    return {
      ipAddress: formatAddress(address),
      macAddress: this.#macAddress(address),
      write: { put: keyOf(network.uid, address), value: { ...holder }, ifRevision: 0 },
    };
  }

  /** Frees the address, in the commit that removes its holder. */
  release(networkUid: string, ipAddress: string): Write {
    const address = parseCidr(`${ipAddress}/32`)?.range.first ?? 0;
    return { delete: keyOf(networkUid, address) };
  }

  async inUse(networkUid: string): Promise<boolean> {
    const page = await this.#store.list(prefixOf(networkUid), { limit: 1 });
    return page.entries.length > 0;
  }

  async #findFree(uid: string, range: Range): Promise<number | undefined> {
    const first = range.first + reservedAtStart;
    const last = lastOf(range) - reservedAtEnd;
    const start = Math.min(Math.max(this.#next.get(uid) ?? first, first), last);
    const found = (await this.#gap(uid, start, last)) ?? (await this.#gap(uid, first, start - 1));
    if (found === undefined) return undefined;
    this.#next.set(uid, found === last ? first : found + 1);
    return found;
  }

  /** The lowest free address of [from, to]. */
  async #gap(uid: string, from: number, to: number): Promise<number | undefined> {
    for (let candidate = from; candidate <= to; ) {
      const page = await this.#store.list(prefixOf(uid), {
        limit: candidate === from ? 1 : scanPage,
        after: keyOf(uid, candidate - 1),
      });
      for (const entry of page.entries) {
        if (parseAddressKey(entry.key.slice(prefixOf(uid).length)) !== candidate) break;
        candidate++;
      }
      const covered = page.entries.at(-1)?.key === keyOf(uid, candidate - 1);
      if (!covered || page.next === undefined) return candidate <= to ? candidate : undefined;
    }
    return undefined;
  }

  /**
   * Locally administered and unicast (IEEE 802, second-lowest bit set, lowest clear). It ends in the address, so no
   * two cards of one network can share it; the random octet keeps a reused address from looking like the old card.
   */
  #macAddress(address: number): string {
    const [salt = 0] = this.#random.bytes(1);
    const octets = [2, salt, ...[24, 16, 8, 0].map((shift) => (address >>> shift) & 255)];
    return octets.map((octet) => octet.toString(16).padStart(2, "0")).join(":");
  }
}

function rangeOf(cidr: string): Range {
  const parsed = parseCidr(cidr);
  if (!parsed) throw new StrataError("Internal", `the network's range ${cidr} is malformed`);
  return parsed.range;
}

function prefixOf(uid: string): string {
  return `/addresses/${uid}/`;
}

function keyOf(uid: string, address: number): string {
  return `${prefixOf(uid)}${addressKey(address)}`;
}
