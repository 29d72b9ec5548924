import { type Random, randomInt } from "../src/core/random.ts";

/** The middle value; the mean of the two middle ones where there are two. NaN for no values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** The smallest value that at least `fraction` of all do not exceed. NaN for no values. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)] ?? Number.NaN;
}

export interface Ratio {
  /** Median of peer over ours: how many times faster ours is. */
  ratio: number;
  /** Bootstrap 95 % interval of that ratio. */
  low: number;
  high: number;
}

/**
 * How many times faster `ours` is than `peer`, from interleaved pairs: the median of the pairwise ratios, with a
 * percentile bootstrap over pairs (Efron 1979, 2,000 resamples). A goal is met when `low` meets it.
 */
export function speedUp(ours: readonly number[], peer: readonly number[], random: Random): Ratio {
  const ratios = ours.map((value, index) => (peer[index] ?? Number.NaN) / value);
  const medians = Array.from({ length: 2000 }, () =>
    median(ratios.map(() => ratios[randomInt(random, ratios.length)] ?? Number.NaN)),
  );
  return { ratio: median(ratios), low: percentile(medians, 0.025), high: percentile(medians, 0.975) };
}
