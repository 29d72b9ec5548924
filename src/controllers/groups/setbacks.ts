import type { Instant } from "../../core/clock.ts";
import type { Setbacks } from "./world.ts";

export const noSetbacks: Setbacks = { count: 0, lastAt: 0, why: "" };

const firstPauseMs = 5_000;
const lastPauseMs = 10 * 60_000;

/** Until then no new member is made: a template that does not work must not make and delete members without end. */
export function setbackEnd({ count, lastAt }: Setbacks): Instant {
  if (count === 0) return 0;
  return lastAt + Math.min(lastPauseMs, firstPauseMs * 2 ** Math.min(count - 1, 20));
}
