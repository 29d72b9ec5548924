/** Measured values as people read them. Pure. */
import { formatBytes, formatMib } from "../../core/units.ts";
import type { MetricUnit } from "../../kinds/metric-names.ts";

export function valueText(value: number | undefined, unit: MetricUnit): string {
  if (value === undefined) return "-";
  switch (unit) {
    case "percent":
      return `${plain(value)} %`;
    case "mebibytes":
      return value < 1 ? formatBytes(Math.round(value * 1024 ** 2)) : formatMib(value);
    case "bytes/s":
      return `${formatBytes(Math.round(value))}/s`;
    case "per second":
      return `${plain(value)}/s`;
    case "ms":
      return `${plain(value)} ms`;
    case "count":
      return plain(value);
  }
}

/** Three digits are enough to read. */
function plain(value: number): string {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return value.toFixed(1).replace(/\.0$/, "");
}
