import type { Instant } from "../../src/core/clock.ts";
import type { Chance } from "../chance.ts";

const hourMs = 3_600_000;

/** Jobs waiting for a group: a day, a week, slow growth, noise and now and then a rush. */
export class Demand {
  readonly #chance: Chance;
  readonly #base: number;
  readonly #swing: number;
  readonly #peakHour: number;
  #rushUntil = 0;

  constructor(chance: Chance, base: number) {
    this.#chance = chance;
    this.#base = base;
    this.#swing = chance.between(20, 90) / 100;
    this.#peakHour = chance.below(24);
  }

  at(now: Instant): number {
    const hours = now / hourMs;
    const day = Math.cos(((hours - this.#peakHour) / 24) * 2 * Math.PI);
    const weekend = Math.floor(hours / 24) % 7 >= 5 ? 0.6 : 1;
    if (this.#chance.happens(0.01)) this.#rushUntil = now + this.#chance.between(1, 5) * hourMs;
    const rush = now < this.#rushUntil ? 2.5 : 1;
    const noise = this.#chance.between(85, 115) / 100;
    return Math.max(0, this.#base * (1 + this.#swing * day) * weekend * rush * noise);
  }
}
