const bars = "▁▂▃▄▅▆▇█";

/** One character a value, from the bottom (0, or less where there is less) to the largest; gaps stay blank. */
export function sparkline(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined);
  const bottom = Math.min(0, ...known);
  const height = Math.max(0, ...known) - bottom;
  return values
    .map((value) => {
      if (value === undefined) return " ";
      const level = height === 0 ? 0 : Math.round(((value - bottom) / height) * (bars.length - 1));
      return bars[level];
    })
    .join("");
}

/** The points of a series by step, with gaps where there is none. Times are instants, steps in milliseconds. */
export function bySteps(
  points: readonly { at: number; mean: number }[],
  range: { from: number; until: number; stepMs: number },
): (number | undefined)[] {
  const count = Math.max(0, Math.ceil((range.until - range.from) / range.stepMs));
  const values: (number | undefined)[] = Array.from({ length: count }, () => undefined);
  for (const { at, mean } of points) values[Math.floor((at - range.from) / range.stepMs)] = mean;
  return values;
}
