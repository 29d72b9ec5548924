import type { Instant } from "../../core/clock.ts";

export interface PastWish {
  at: Instant;
  members: number;
}

/**
 * What a group wanted lately, as far as it can still be the most within a window: an earlier wish that a later one reaches can
 * not. So only a falling row is kept.
 */
export class RecentWishes {
  readonly #wishes: PastWish[] = [];

  add(wish: PastWish, windowMs: number): void {
    while ((this.#wishes.at(-1)?.members ?? Number.POSITIVE_INFINITY) <= wish.members) this.#wishes.pop();
    this.#wishes.push(wish);
    while ((this.#wishes[0]?.at ?? wish.at) + windowMs <= wish.at && this.#wishes.length > 1)
      this.#wishes.shift();
  }

  all(): readonly PastWish[] {
    return this.#wishes;
  }
}
