/**
 * Addresses of uplinks. Every network's uplink has a pair of its own: the host's end and the inner end. Pairs are the /31s of
 * 100.64.0.0/11 (the lower half of RFC 6598: between a provider and its customers, so neither a network's range nor an address of the outside),
 * each with a /127 of one unique local prefix. All else about a pair follows from its number.
 *
 * No record is kept: a network's pair is read back from its interface. A network begins its search at a place that its
 * name says, so it mostly gets the same pair again also after a reboot.
 */
import { createHash } from "node:crypto";
import { assert } from "../../core/errors.ts";
import { formatIp, type IpRange, overlaps, parseIp, parseRange } from "../../core/ip-range.ts";

export interface UplinkPair {
  index: number;
  hostAddress: string;
  innerAddress: string;
  /** Both, as the range that the interfaces' addresses are in. */
  cidr: string;
  hostAddress6: string;
  innerAddress6: string;
  cidr6: string;
  /** Number of the host's routing table that leads to the network. */
  table: number;
}

export const uplinkPool = "100.64.0.0/11";
/** `fd`, and "strat" in ASCII. */
export const uplinkPool6 = "fd73:7472:6174::/48";
/** Priority of the host's rules that choose a network's table by the host's address. */
export const hostRulePriority = 6464;

/** Of /31s; the first is left out, because its addresses end in 0 and 1. */
const pairCount = 2 ** 20;
const firstTable = 100_000_000;

const pool = requireRange(uplinkPool);
const pool6 = requireRange(uplinkPool6);

export function uplinkPair(index: number): UplinkPair {
  assert(Number.isInteger(index) && index > 0 && index < pairCount, `uplink pair ${index}`);
  const offset = BigInt(index) * 2n;
  const address = (range: IpRange, end: bigint) =>
    formatIp({ family: range.family, value: range.base + offset + end });
  return {
    index,
    hostAddress: address(pool, 0n),
    innerAddress: address(pool, 1n),
    cidr: `${address(pool, 0n)}/31`,
    hostAddress6: address(pool6, 0n),
    innerAddress6: address(pool6, 1n),
    cidr6: `${address(pool6, 0n)}/127`,
    table: firstTable + index,
  };
}

/** The pair to which one of its IPv4 addresses belongs. */
export function pairOf(address: string): UplinkPair | undefined {
  const parsed = parseIp(address);
  if (parsed?.family !== 4 || !overlaps(pool, { ...parsed, base: parsed.value, prefixLength: 32 }))
    return undefined;
  const index = Number(parsed.value - pool.base) >>> 1;
  return index === 0 ? undefined : uplinkPair(index);
}

/** The first pair that overlaps none of the ranges in use, from `first` or else from where the name says. */
export function chooseFreePair(
  name: string,
  inUse: readonly IpRange[],
  first?: number,
): UplinkPair | undefined {
  const relevant = inUse.filter((range) => range.prefixLength > 0 && overlaps(range, pool));
  const start = first ?? createHash("sha256").update(name).digest().readUInt32BE(0);
  for (let step = 0; step < pairCount; step++) {
    const index = (start + step) % pairCount;
    if (index === 0) continue;
    const pair = { family: 4 as const, base: pool.base + BigInt(index) * 2n, prefixLength: 31 };
    const taken = relevant.find((range) => overlaps(range, pair));
    if (!taken) return uplinkPair(index);
    // A wide range is left behind at once.
    const last = taken.base + (1n << BigInt(32 - taken.prefixLength)) - 1n;
    const beyond = Number(last - pair.base) >>> 1;
    step += Math.min(beyond, pairCount - 1 - index);
  }
  return undefined;
}

function requireRange(text: string): IpRange {
  const parsed = parseRange(text);
  assert(parsed?.exact, `${text} is a range`);
  return parsed.range;
}
