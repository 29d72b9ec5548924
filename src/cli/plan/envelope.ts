/** Steps over time as pixel columns: what changes more often than a column is wide is drawn as a band. */
import type { Instant } from "../../core/clock.ts";
import { round } from "../networks/svg-shapes.ts";

export interface Scale {
  left: number;
  columns: number;
  from: Instant;
  until: Instant;
  /** Where zero is. */
  base: number;
  y(value: number): number;
}

/** The smallest and the greatest value within each column. */
export interface Envelope {
  low: number[];
  high: number[];
}

/** The spans follow one another without gaps. */
export function columnsOf(
  spans: readonly { from: Instant; until: Instant; value: number }[],
  scale: Scale,
): Envelope {
  const low = new Array<number>(scale.columns).fill(Number.POSITIVE_INFINITY);
  const high = new Array<number>(scale.columns).fill(Number.NEGATIVE_INFINITY);
  const width = Math.max(1, scale.until - scale.from) / scale.columns;
  // A change belongs to the column that it lies nearest to the start of, so that a single one stays a clean step.
  const columnAt = (at: Instant) => Math.round((at - scale.from) / width);
  for (const { from, until, value } of spans) {
    const first = Math.min(scale.columns - 1, columnAt(from));
    const last = Math.max(first + 1, Math.min(scale.columns, columnAt(until)));
    for (let column = first; column < last; column++) {
      low[column] = Math.min(low[column] ?? value, value);
      high[column] = Math.max(high[column] ?? value, value);
    }
  }
  const [least, most] = [low.map(finite), high.map(finite)];
  // Closing and opening: a single step stays where it is.
  return { low: within(within(least, Math.min), Math.max), high: within(within(most, Math.max), Math.min) };
}

/** What goes back and forth within twice as many columns is a band and not steps. */
const blur = 2;

/** Of each column and its neighbours. */
function within(values: readonly number[], choose: (...values: number[]) => number): number[] {
  return values.map((_, column) => choose(...values.slice(Math.max(0, column - blur), column + blur + 1)));
}

function finite(value: number): number {
  return Number.isFinite(value) ? value : 0;
}

/** Corners only: a new one where the value changes. */
function corners(values: readonly number[], { left, y }: Scale): [number, number][] {
  const points: [number, number][] = [];
  values.forEach((value, column) => {
    if (column > 0 && value === values[column - 1]) return;
    const before = points.at(-1);
    if (before) points.push([left + column, before[1]]);
    points.push([left + column, round(y(value))]);
  });
  const last = points.at(-1);
  return last ? [...points, [left + values.length, last[1]]] : [];
}

export function steps(values: readonly number[], scale: Scale): string {
  return drawn(corners(values, scale));
}

/** The area between these values and those below; left out: down to zero. */
export function outline(values: readonly number[], scale: Scale, below?: readonly number[]): string {
  const under = below
    ? corners(below, scale)
    : [
        [scale.left, scale.base] as [number, number],
        [scale.left + values.length, scale.base] as [number, number],
      ];
  return `${drawn([...corners(values, scale), ...under.reverse()])}Z`;
}

function drawn(points: readonly (readonly [number, number])[]): string {
  return points.map(([x, y], index) => `${index === 0 ? "M" : "L"}${x} ${y}`).join("");
}
