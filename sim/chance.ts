import { type Random, randomFraction, randomInt, seededRandom } from "../src/core/random.ts";

/** Decisions from a seed. */
export class Chance {
  readonly random: Random;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  /** True with this probability. */
  happens(probability: number): boolean {
    return probability > 0 && randomFraction(this.random) < probability;
  }

  below(limit: number): number {
    return randomInt(this.random, limit);
  }

  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items.length === 0 ? undefined : items[this.below(items.length)];
  }
}
