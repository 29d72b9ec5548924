/** IPv4 addresses as unsigned 32-bit numbers, and ranges as their first address and prefix length. */

export interface Range {
  /** The network address. */
  first: number;
  prefixLength: number;
}

export function sizeOf(range: Range): number {
  return 2 ** (32 - range.prefixLength);
}

export function lastOf(range: Range): number {
  return range.first + sizeOf(range) - 1;
}

export function overlaps(a: Range, b: Range): boolean {
  return a.first <= lastOf(b) && b.first <= lastOf(a);
}

/** Undefined unless it is ADDRESS/LENGTH; `exact` is false when ADDRESS is not the first of its range. */
export function parseCidr(text: string): { range: Range; exact: boolean } | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (!match) return undefined;
  const [, ...parts] = match.map(Number);
  const octets = parts.slice(0, 4);
  const prefixLength = parts[4] ?? 0;
  if (octets.some((octet) => octet > 255) || prefixLength > 32) return undefined;
  const address = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const range = rangeAround(address, prefixLength);
  return { range, exact: range.first === address };
}

/** The range of this length that the address is in. */
export function rangeAround(address: number, prefixLength: number): Range {
  const size = 2 ** (32 - prefixLength);
  return { first: Math.floor(address / size) * size, prefixLength };
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

export function formatCidr(range: Range): string {
  return `${formatAddress(range.first)}/${range.prefixLength}`;
}

/** Eight hexadecimal digits: as text in the order of the addresses. */
export function addressKey(address: number): string {
  return address.toString(16).padStart(8, "0");
}

export function parseAddressKey(key: string): number {
  return Number.parseInt(key, 16);
}
