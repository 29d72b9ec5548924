import { type FieldError, StrataError } from "../core/errors.ts";
import { type Revision, type Store, storeLimits, type Write } from "../store/store.ts";
import { addressKey, formatCidr, lastOf, overlaps, parseCidr, type Range, sizeOf } from "./ipv4.ts";

/**
 * Which ranges belong to networks: one key each, `/allocations/cidrs/START-LENGTH`, and no two of them overlap. Every
 * allocation also rewrites `/allocations/cidrs`, so that of two that looked at the same state only one commits.
 */

const defaultNetworkPool = "10.77.0.0/16";
/** Length of the ranges that Strata picks. */
const allocatedPrefixLength = 24;

const guardKey = "/allocations/cidrs";
const prefix = `${guardKey}/`;

/** Ranges that mean something else everywhere (RFC 6890); a network there would never work. */
const unusable = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];

export interface Claim {
  cidr: string;
  writes: Write[];
}

export interface RangeOwner {
  project: string;
  network: string;
  uid: string;
}

export class Ranges {
  readonly #store: Store;
  readonly #pool: Range;

  /** @throws Invalid when the pool is no range or smaller than a /24. */
  constructor(store: Store, pool: string = defaultNetworkPool) {
    const parsed = parseCidr(pool);
    if (!parsed?.exact || parsed.range.prefixLength > allocatedPrefixLength) {
      throw new StrataError(
        "Invalid",
        `the network pool ${pool} is not a range of at least /24, such as 10.77.0.0/16`,
      );
    }
    this.#store = store;
    this.#pool = parsed.range;
  }

  /**
   * The wanted range, or a free one of the pool. It is the owner's once the writes are committed.
   * @throws Conflict when the wanted range overlaps another; CapacityExceeded when the pool is used up.
   */
  async claim(wanted: string | undefined, owner: RangeOwner): Promise<Claim> {
    const guard = await this.#store.get(guardKey);
    const taken = await this.#list();
    const range = wanted === undefined ? this.#pick(taken) : checkFree(wanted, taken);
    return {
      cidr: formatCidr(range),
      writes: [
        { put: keyOf(range), value: { ...owner }, ifRevision: 0 },
        { put: guardKey, value: { latest: formatCidr(range) }, ifRevision: guard?.revision ?? 0 },
      ],
    };
  }

  /** Frees the range, in the commit that removes its network. */
  release(cidr: string): Write {
    const parsed = parseCidr(cidr);
    return { delete: parsed ? keyOf(parsed.range) : `${prefix}none` };
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
        const range = { first: Number.parseInt(start, 16), prefixLength: Number(length) };
        taken.push({ range, owner: value as unknown as RangeOwner });
      }
      at = page.revision;
      after = page.next;
    } while (after !== undefined);
    return taken;
  }

  #pick(taken: readonly TakenRange[]): Range {
    const size = sizeOf({ first: 0, prefixLength: allocatedPrefixLength });
    let first = this.#pool.first;
    // Sorted by first address and free of overlaps, so one pass finds the lowest gap.
    for (const { range } of taken) {
      const candidate = { first, prefixLength: allocatedPrefixLength };
      if (lastOf(range) < first || !overlaps(range, candidate)) continue;
      first = Math.ceil((lastOf(range) + 1) / size) * size;
    }
    if (first > lastOf(this.#pool)) {
      throw new StrataError(
        "CapacityExceeded",
        `all ranges of the network pool ${formatCidr(this.#pool)} are taken; ` +
          "delete networks, or name a free range in spec.cidr",
      );
    }
    return { first, prefixLength: allocatedPrefixLength };
  }
}

interface TakenRange {
  range: Range;
  owner: RangeOwner;
}

/** What is wrong with a range that a user names; undefined when nothing is. */
export function cidrError(cidr: string): FieldError | undefined {
  const parsed = parseCidr(cidr);
  const path = "spec.cidr";
  if (!parsed)
    return { path, message: `is "${cidr}", which is no IPv4 range`, allowed: "10.20.0.0/24 and the like" };
  if (!parsed.exact) {
    const allowed = formatCidr(parsed.range);
    return { path, message: `is "${cidr}", but that range starts at another address`, allowed };
  }
  const reserved = unusable.find((other) => {
    const range = parseCidr(other)?.range;
    return range !== undefined && overlaps(range, parsed.range);
  });
  if (reserved === undefined) return undefined;
  return {
    path,
    message: `is "${cidr}", but ${reserved} is reserved for other uses`,
    allowed: "a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
  };
}

function checkFree(cidr: string, taken: readonly TakenRange[]): Range {
  const range = parseCidr(cidr)?.range;
  if (!range) throw new StrataError("Internal", `the range ${cidr} was not checked before it was claimed`);
  const other = taken.find((candidate) => overlaps(candidate.range, range));
  if (!other) return range;
  throw new StrataError(
    "Conflict",
    `the range ${cidr} overlaps ${formatCidr(other.range)} of another network; ` +
      "choose another range, or leave spec.cidr out and get a free one",
    { detail: `taken by ${other.owner.project}/${other.owner.network}` },
  );
}

function keyOf(range: Range): string {
  return `${prefix}${addressKey(range.first)}-${range.prefixLength}`;
}
