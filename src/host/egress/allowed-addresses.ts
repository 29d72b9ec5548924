/**
 * Where what users name may lead: to the public Internet, and to what the host's operator has named. Anything else that this
 * host can reach and a user cannot (itself, its neighbours, metadata services, networks of other projects) stays out of reach.
 */
import { contains, type IpAddress, type IpRange, parseIp, parseRange } from "../../core/ip-range.ts";

/**
 * Addresses that are nobody's on the Internet: "not globally reachable" in IANA's registries of special-purpose addresses
 * (RFC 6890), multicast, and 6to4 and Teredo, which carry an IPv4 address of anybody's choice.
 */
const special = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
  "::/16",
  "100::/64",
  "2001::/23",
  "2001:db8::/32",
  "2002::/16",
  "3fff::/20",
  "5f00::/16",
  "64:ff9b:1::/48",
  "fc00::/7",
  "fe80::/9",
  "ff00::/8",
].map(rangeOf);

/** Both carry an IPv4 address in their last 32 bits: as sockets show it, and through a translator (RFC 6052). */
const mapped = rangeOf("::ffff:0:0/96");
const translated = rangeOf("64:ff9b::/96");

export interface AddressRules {
  /** What the operator allows, whatever it is. */
  allowed: readonly IpRange[];
  /** Networks that this host is in. */
  own: readonly IpRange[];
}

export function isAllowedAddress(address: IpAddress, { allowed, own }: AddressRules): boolean {
  const meant = withinIpv6(address);
  const isIn = (ranges: readonly IpRange[]) =>
    ranges.some((range) => contains(range, meant) || contains(range, address));
  if (isIn(allowed)) return true;
  if (isIn(own)) return false;
  return !special.some((range) => contains(range, meant));
}

function withinIpv6(address: IpAddress): IpAddress {
  if (!contains(mapped, address) && !contains(translated, address)) return address;
  return { family: 4, value: address.value & 0xffff_ffffn };
}

/** A range, or one address; undefined for anything else. */
export function parseNetwork(text: string): IpRange | undefined {
  const address = parseIp(text);
  if (address) {
    const { family, value } = address;
    return { family, base: value, prefixLength: family === 4 ? 32 : 128 };
  }
  const found = parseRange(text);
  return found?.exact ? found.range : undefined;
}

function rangeOf(text: string): IpRange {
  const found = parseNetwork(text);
  if (!found) throw new Error(`${text} is no range`);
  return found;
}
