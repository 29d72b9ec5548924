import { StrataError } from "../core/errors.ts";
import { formatIp, type IpRange, lastOf, parseIp, parseRange, sizeOf } from "../core/ip-range.ts";
import type { Random } from "../core/random.ts";
import type { Store, Write } from "../store/store.ts";
import { addressKey, FreeAddresses } from "./free-addresses.ts";

/**
 * Which addresses of a network are taken by cards: one key each, `/allocations/cards/NETWORK-UID/FAMILY/` and the
 * address. Subnets of one network do not overlap, so its addresses are unique whatever the subnet.
 */

/** Network address and gateway at the start, broadcast at the end. */
const reservedAtStart = 2n;
const reservedAtEnd = 1n;

/** Whose address it is. */
export interface Holder {
  /** Of the resource with the card: `Instance` or `NetworkInterface`. */
  kind: string;
  project: string;
  name: string;
  uid: string;
}

/** Where a card gets its addresses from. */
export interface AddressSource {
  networkUid: string;
  /** Of the subnet. */
  name: string;
  cidr: string;
  ipv6Cidr: string | undefined;
}

export interface Taken {
  ipAddress: string;
  ipv6Address?: string;
  macAddress: string;
  writes: Write[];
}

export class Addresses {
  readonly #store: Store;
  readonly #random: Random;
  readonly #free: FreeAddresses;

  constructor(store: Store, random: Random) {
    this.#store = store;
    this.#random = random;
    this.#free = new FreeAddresses(store);
  }

  /**
   * Free addresses, or the fixed ones; they are the holder's once `writes` are committed. Fixed ones must be usable and
   * free, which `holderOf` tells.
   * @throws CapacityExceeded when none is free.
   */
  async take(
    source: AddressSource,
    holder: Holder,
    fixed: { ipAddress?: string | undefined; ipv6Address?: string | undefined } = {},
  ): Promise<Taken> {
    const value = fixed.ipAddress === undefined ? await this.#find(source) : numberOf(fixed.ipAddress);
    const macAddress = this.#macAddress(value);
    const ipv6 = ipv6Of(fixed.ipv6Address, source.ipv6Cidr, macAddress);
    const ipAddress = formatIp({ family: 4, value });
    const ipv6Address = ipv6 === undefined ? {} : { ipv6Address: formatIp({ family: 6, value: ipv6 }) };
    const taken = Object.values({ ipAddress, ...ipv6Address });
    return {
      ipAddress,
      ...ipv6Address,
      macAddress,
      writes: taken.map((address) => takenAddress(source.networkUid, address, holder)),
    };
  }

  /** Frees them, in the commit that removes their holder. */
  release(networkUid: string, ...addresses: readonly (string | undefined)[]): Write[] {
    return addresses.flatMap((text) => (text === undefined ? [] : [{ delete: keyOf(networkUid, text) }]));
  }

  async holderOf(networkUid: string, text: string): Promise<Holder | undefined> {
    const entry = await this.#store.get(keyOf(networkUid, text));
    return entry?.value as unknown as Holder | undefined;
  }

  async inUse(networkUid: string): Promise<boolean> {
    const page = await this.#store.list(prefixOf(networkUid), { limit: 1 });
    return page.entries.length > 0;
  }

  async #find({ networkUid, name, cidr }: AddressSource): Promise<bigint> {
    const range = rangeOf(cidr);
    const found = await this.#free.find({
      family: 4,
      prefix: `${prefixOf(networkUid)}4/`,
      first: range.base + reservedAtStart,
      last: lastOf(range) - reservedAtEnd,
    });
    if (found !== undefined) return found;
    throw new StrataError(
      "CapacityExceeded",
      `subnet "${name}" has no free address: all ${sizeOf(range) - reservedAtStart - reservedAtEnd} of ${cidr} are taken; ` +
        "delete instances, or use another subnet",
    );
  }

  /**
   * Locally administered and unicast (IEEE 802, second-lowest bit set, lowest clear). It ends in the IPv4 address, so
   * no two cards of one network can share it; the random octet keeps a reused address from looking like the old card.
   */
  #macAddress(address: bigint): string {
    const [salt = 0] = this.#random.bytes(1);
    const octets = [2, salt, ...[24n, 16n, 8n, 0n].map((shift) => Number((address >> shift) & 255n))];
    return octets.map((octet) => octet.toString(16).padStart(2, "0")).join(":");
  }
}

/** What is wrong with a fixed address of a card in this range, and what would be right; undefined: nothing. */
export function unusable(
  text: string,
  range: IpRange,
  subnet: string,
): { message: string; allowed: string } | undefined {
  const address = parseIp(text);
  // Of IPv6 the first is every router's (RFC 4291, 2.6.1), and there is no broadcast.
  const end = range.family === 4 ? reservedAtEnd : 0n;
  const ends = [range.base + reservedAtStart, lastOf(range) - end].map((value) =>
    formatIp({ family: range.family, value }),
  );
  const allowed = ends.join(" to ");
  if (address?.family !== range.family || address.value < range.base || address.value > lastOf(range)) {
    return { message: `is ${text}, which is outside of subnet "${subnet}"`, allowed };
  }
  const names = [
    [range.base, "the subnet's own address"],
    [range.base + 1n, "the subnet's gateway"],
    ...(range.family === 4 ? [[lastOf(range), "the subnet's broadcast address"] as const] : []),
  ] as const;
  const name = names.find(([value]) => value === address.value)?.[1];
  return name === undefined ? undefined : { message: `is ${text}, which is ${name}`, allowed };
}

/** For the commit that makes it the holder's. */
export function takenAddress(networkUid: string, text: string, holder: Holder): Write {
  return { put: keyOf(networkUid, text), value: { ...holder }, ifRevision: 0 };
}

function ipv6Of(fixed: string | undefined, cidr: string | undefined, macAddress: string): bigint | undefined {
  if (fixed !== undefined) return numberOf(fixed);
  return cidr === undefined ? undefined : rangeOf(cidr).base + interfaceId(macAddress);
}

/** Modified EUI-64 (RFC 4291, appendix A): the low 64 bits of an address made of a hardware address. */
export function interfaceId(macAddress: string): bigint {
  const [a = 0, b = 0, c = 0, ...rest] = macAddress.split(":").map((octet) => Number.parseInt(octet, 16));
  return [a ^ 2, b, c, 0xff, 0xfe, ...rest].reduce((value, octet) => (value << 8n) | BigInt(octet), 0n);
}

function rangeOf(cidr: string): IpRange {
  const parsed = parseRange(cidr);
  if (!parsed) throw new StrataError("Internal", `the range ${cidr} of a subnet is malformed`);
  return parsed.range;
}

function numberOf(text: string): bigint {
  const address = parseIp(text);
  if (!address) throw new StrataError("Internal", `the address ${text} was not checked before it was taken`);
  return address.value;
}

function prefixOf(networkUid: string): string {
  return `/allocations/cards/${networkUid}/`;
}

function keyOf(networkUid: string, text: string): string {
  const address = parseIp(text);
  if (!address) throw new StrataError("Internal", `the address ${text} was not checked before it was taken`);
  const { family, value } = address;
  return `${prefixOf(networkUid)}${family}/${addressKey(family, value)}`;
}
