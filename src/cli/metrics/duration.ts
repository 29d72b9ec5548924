import { StrataError } from "../../core/errors.ts";

const units: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `15m`, `2h`, `7d` in milliseconds. @throws Invalid naming the option. */
export function parseDuration(option: string, text: string): number {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  const unit = units[match?.[2] ?? ""];
  if (match && unit !== undefined && Number(match[1]) > 0) return Number(match[1]) * unit;
  throw new StrataError(
    "Invalid",
    `--${option} must be a number with s, m, h or d, such as 90s, 15m, 2h or 7d, not "${text}"`,
  );
}
