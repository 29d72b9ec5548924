import { randomBytes } from "node:crypto";

/** Randomness comes from here and nowhere else, so that a simulation can be repeated from its seed. */
export interface Random {
  bytes(count: number): Uint8Array;
}

export const systemRandom: Random = { bytes: (count) => randomBytes(count) };

/** Repeatable bytes from a seed (splitmix32). Not for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  return {
    bytes: (count) => Uint8Array.from({ length: count }, () => next() & 0xff),
  };
}

/** A uniform integer in [0, below). `below` at most 2^32. */
export function randomInt(random: Random, below: number): number {
  const limit = Math.floor(0x1_0000_0000 / below) * below;
  for (;;) {
    const value = Buffer.from(random.bytes(4)).readUInt32BE(0);
    if (value < limit) return value % below;
  }
}

/** A uniform number in [0, 1). */
export function randomFraction(random: Random): number {
  return Buffer.from(random.bytes(4)).readUInt32BE(0) / 0x1_0000_0000;
}
