import { StrataError } from "../core/errors.ts";
import {
  formatRange,
  type IpFamily,
  type IpRange,
  lastOf,
  overlaps,
  parseRange,
  widthOf,
} from "../core/ip-range.ts";
import { type Revision, type Store, storeLimits, type Write } from "../store/store.ts";
import { addressKey, parseAddressKey } from "./free-addresses.ts";

/**
 * Which ranges the host's own routing leads to: one key each, `/allocations/cidrs/START-LENGTH`, and no two of them
 * overlap. Every claim also rewrites `/allocations/cidrs`, so that of two that looked at the same state only one
 * commits. Networks that the host has no route to may have any range and claim none.
 */

const defaultNetworkPool = "10.77.0.0/16";
/** Length of the ranges that Strata picks. */
const allocatedPrefixLength = 24;

const guardKey = "/allocations/cidrs";
const prefix = `${guardKey}/`;

export interface RangeOwner {
  project: string;
  network: string;
  uid: string;
}

export class Ranges {
  readonly #store: Store;
  readonly #pool: IpRange;

  /** @throws Invalid when the pool is no range or smaller than a /24. */
  constructor(store: Store, pool: string = defaultNetworkPool) {
    const parsed = parseRange(pool);
    if (!parsed?.exact || parsed.range.family !== 4 || parsed.range.prefixLength > allocatedPrefixLength) {
      throw new StrataError(
        "Invalid",
        `the network pool ${pool} is not a range of at least /24, such as 10.77.0.0/16`,
      );
    }
    this.#store = store;
    this.#pool = parsed.range;
  }

  /**
   * The wanted ranges, with a free one of the pool in place of a missing IPv4 range. They are the owner's once the
   * writes are committed.
   * @throws Conflict when a wanted range overlaps another; CapacityExceeded when the pool is used up.
   */
  async claim(
    wanted: { cidr?: string | undefined; ipv6Cidr?: string | undefined },
    owner: RangeOwner,
  ): Promise<{ cidr: string; writes: Write[] }> {
    const guard = await this.#store.get(guardKey);
    const taken = await this.#list();
    const range = wanted.cidr === undefined ? this.#pick(taken) : checkFree(wanted.cidr, "cidr", taken);
    const cidr = formatRange(range);
    const claimed =
      wanted.ipv6Cidr === undefined ? [range] : [range, checkFree(wanted.ipv6Cidr, "ipv6Cidr", taken)];
    return {
      cidr,
      writes: [
        ...claimed.map((one): Write => ({ put: keyOf(one), value: { ...owner }, ifRevision: 0 })),
        { put: guardKey, value: { latest: cidr }, ifRevision: guard?.revision ?? 0 },
      ],
    };
  }

  /** Frees what of these the owner has claimed, in the commit that removes it. */
  async release(owner: { uid: string }, ...cidrs: readonly (string | undefined)[]): Promise<Write[]> {
    const writes: Write[] = [];
    for (const cidr of cidrs) {
      const parsed = parseRange(cidr ?? "");
      const entry = parsed && (await this.#store.get(keyOf(parsed.range)));
      if (entry && (entry.value as unknown as RangeOwner).uid === owner.uid) {
        writes.push({ delete: entry.key, ifRevision: entry.revision });
      }
    }
    return writes;
  }

  async #list(): Promise<TakenRange[]> {
    const taken: TakenRange[] = [];
    let after: string | undefined;
    let at: Revision | undefined;
    do {
      const page = await this.#store.list(prefix, {
        limit: storeLimits.pageEntries,
        ...(after === undefined ? {} : { after }),
        ...(at === undefined ? {} : { at }),
      });
      for (const { key, value } of page.entries) {
        const [start = "", length = ""] = key.slice(prefix.length).split("-");
        const family: IpFamily = start.length === widthOf(4) / 4 ? 4 : 6;
        const range = { family, base: parseAddressKey(start), prefixLength: Number(length) };
        taken.push({ range, owner: value as unknown as RangeOwner });
      }
      at = page.revision;
      after = page.next;
    } while (after !== undefined);
    return taken;
  }

  #pick(taken: readonly TakenRange[]): IpRange {
    const { family } = this.#pool;
    const size = 1n << BigInt(widthOf(family) - allocatedPrefixLength);
    let base = this.#pool.base;
    // Of one family sorted by first address and free of overlaps, so one pass finds the lowest gap.
    for (const { range } of taken) {
      if (!overlaps(range, { family, base, prefixLength: allocatedPrefixLength })) continue;
      base = ((lastOf(range) + size) / size) * size;
    }
    if (base <= lastOf(this.#pool)) return { family, base, prefixLength: allocatedPrefixLength };
    throw new StrataError(
      "CapacityExceeded",
      `all ranges of the network pool ${formatRange(this.#pool)} are taken; ` +
        "delete networks, or name a range in spec.cidr",
    );
  }
}

interface TakenRange {
  range: IpRange;
  owner: RangeOwner;
}

function checkFree(cidr: string, field: string, taken: readonly TakenRange[]): IpRange {
  const range = parseRange(cidr)?.range;
  if (!range) throw new StrataError("Internal", `the range ${cidr} was not checked before it was claimed`);
  const other = taken.find((candidate) => overlaps(candidate.range, range));
  if (!other) return range;
  const path = `spec.${field}`;
  const problem = `is ${cidr}, which overlaps ${formatRange(other.range)} of another network that the host has a route to`;
  throw new StrataError(
    "Conflict",
    `${path} ${problem}; choose another range, leave it out and get a free one, or set spec.hostRoute to false`,
    {
      detail: `taken by ${other.owner.project}/${other.owner.network}`,
      fields: [{ path, message: problem, allowed: "a range of its own, or spec.hostRoute: false" }],
    },
  );
}

function keyOf({ family, base, prefixLength }: IpRange): string {
  return `${prefix}${addressKey(family, base)}-${prefixLength}`;
}
