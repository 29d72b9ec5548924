/**
 * Addresses and ranges of IPv4 and IPv6. An address is a number of its family's width, so ranges compare and enumerate
 * alike in both. Text forms: dotted decimal without leading zeros, and RFC 5952 for IPv6.
 */
export type IpFamily = 4 | 6;

export interface IpAddress {
  family: IpFamily;
  value: bigint;
}

export interface IpRange {
  family: IpFamily;
  /** The first address; the bits behind the prefix are zero. */
  base: bigint;
  prefixLength: number;
}

/** Of an address, in bits. */
export function widthOf(family: IpFamily): number {
  return family === 4 ? 32 : 128;
}

/** Undefined for anything that is not exactly one address; leading zeros (octal to some programs) and zones included. */
export function parseIp(text: string): IpAddress | undefined {
  const octets = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1);
  if (octets) {
    if (octets.some((octet) => Number(octet) > 255 || (octet.length > 1 && octet.startsWith("0")))) return;
    return { family: 4, value: octets.reduce((value, octet) => value * 256n + BigInt(octet), 0n) };
  }
  const value = parseGroups(text);
  return value === undefined ? undefined : { family: 6, value };
}

/** RFC 4291, 2.2: eight groups, one run of which may be "::"; the last two may be written as an IPv4 address. */
function parseGroups(text: string): bigint | undefined {
  const dotted = /^(.*:)(\d[\d.]*\.\d+)$/.exec(text);
  const tail = dotted?.[2] === undefined ? undefined : parseIp(dotted[2]);
  if (dotted && !tail) return undefined;
  const plain = tail
    ? `${dotted?.[1]}${(tail.value >> 16n).toString(16)}:${(tail.value & 0xffffn).toString(16)}`
    : text;
  const halves = plain.split("::");
  if (halves.length > 2) return undefined;
  const [before = [], after] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = 8 - before.length - (after?.length ?? 0);
  if (after === undefined ? missing !== 0 : missing < 1) return undefined;
  const groups = [...before, ...new Array<string>(missing).fill("0"), ...(after ?? [])];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** RFC 5952 for IPv6: lower case, no leading zeros, the first longest run of at least two zero groups shortened. */
export function formatIp({ family, value }: IpAddress): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => (value >> BigInt(16 * (7 - index))) & 0xffffn);
  let best = { start: 0, length: 0 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0n) length++;
    if (length > best.length) best = { start, length };
  }
  const text = (part: bigint[]) => part.map((group) => group.toString(16)).join(":");
  if (best.length < 2) return text(groups);
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`;
}

/** `exact`: false when the text's address has bits behind its prefix, as in 10.0.0.1/8; the range is right anyway. */
export function parseRange(text: string): { range: IpRange; exact: boolean } | undefined {
  const match = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text);
  const address = parseIp(match?.[1] ?? "");
  const prefixLength = Number(match?.[2]);
  if (!address || prefixLength > widthOf(address.family)) return undefined;
  const { family, value } = address;
  const shift = BigInt(widthOf(family) - prefixLength);
  const base = (value >> shift) << shift;
  return { range: { family, base, prefixLength }, exact: base === value };
}

export function formatRange({ family, base, prefixLength }: IpRange): string {
  return `${formatIp({ family, value: base })}/${prefixLength}`;
}

/** How many addresses it has. */
export function sizeOf({ family, prefixLength }: IpRange): bigint {
  return 1n << BigInt(widthOf(family) - prefixLength);
}

export function lastOf(range: IpRange): bigint {
  return range.base + sizeOf(range) - 1n;
}

/** Is all of `inner` (a range or an address) inside of `outer`? */
export function contains(outer: IpRange, inner: IpRange | IpAddress): boolean {
  if (outer.family !== inner.family) return false;
  const [first, last] = "base" in inner ? [inner.base, lastOf(inner)] : [inner.value, inner.value];
  return first >= outer.base && last <= lastOf(outer);
}

export function overlaps(a: IpRange, b: IpRange): boolean {
  return a.family === b.family && a.base <= lastOf(b) && b.base <= lastOf(a);
}
