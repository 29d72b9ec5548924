/** IPv4 addresses and ranges as numbers. */

export interface Ipv4Range {
  /** First address of the range, as an unsigned 32-bit number. */
  base: number;
  prefixLength: number;
}

/** Undefined when the text is no dotted-quad address; leading zeros, which some programs read as octal, are none. */
export function parseIpv4(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/** Undefined when the text is no `a.b.c.d/n`, or when bits are set outside the prefix. */
export function parseRange(text: string): Ipv4Range | undefined {
  const match = /^([\d.]+)\/(0|[1-9]\d?)$/.exec(text);
  const base = match?.[1] === undefined ? undefined : parseIpv4(match[1]);
  const prefixLength = Number(match?.[2]);
  if (base === undefined || prefixLength > 32 || (base & ~maskOf(prefixLength)) !== 0) return undefined;
  return { base, prefixLength };
}

export function formatRange(range: Ipv4Range): string {
  return `${formatIpv4(range.base)}/${range.prefixLength}`;
}

/** The netmask as a signed 32-bit number, for bit operations. */
export function maskOf(prefixLength: number): number {
  return prefixLength === 0 ? 0 : -1 << (32 - prefixLength);
}

export function contains(range: Ipv4Range, address: number): boolean {
  return ((range.base ^ address) & maskOf(range.prefixLength)) === 0;
}

/** Two ranges overlap exactly when the wider one holds the other's first address. */
export function overlaps(a: Ipv4Range, b: Ipv4Range): boolean {
  return a.prefixLength <= b.prefixLength ? contains(a, b.base) : contains(b, a.base);
}

export function addressCount(range: Ipv4Range): number {
  return 2 ** (32 - range.prefixLength);
}
