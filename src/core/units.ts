import { StrataError } from "./errors.ts";

const units: Record<string, number> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 };

/** What a person may write for a size. */
export const sizeRule = "a whole number with KiB, MiB, GiB or TiB, such as 512MiB or 4GiB";

/**
 * Reads `512MiB`, `4 GiB`, `1.5GiB` and returns whole bytes.
 * @throws Invalid for anything else; decimal units (MB, GB) are refused because people mean both by them.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]+)$/.exec(text.trim());
  const unit = match?.[2] === undefined ? undefined : units[match[2]];
  if (!match?.[1] || unit === undefined) {
    throw new StrataError("Invalid", `"${text}" is not a size: write ${sizeRule}`);
  }
  return Math.round(Number(match[1]) * unit);
}

/** Reads a size and returns whole MiB. @throws Invalid when it is no size or no whole number of MiB. */
export function parseMib(text: string): number {
  const bytes = parseSize(text);
  if (bytes % 1024 ** 2 !== 0) throw new StrataError("Invalid", `"${text}" is not a whole number of MiB`);
  return bytes / 1024 ** 2;
}

/** `1536 MiB` as `1.5 GiB`: at most one decimal, the largest unit that keeps the number at least 1. */
export function formatBytes(bytes: number): string {
  for (const [name, size] of Object.entries(units).reverse()) {
    if (bytes >= size) return `${trimDecimal(bytes / size)} ${name}`;
  }
  return `${bytes} B`;
}

export function formatMib(mib: number): string {
  return formatBytes(mib * 1024 ** 2);
}

function trimDecimal(value: number): string {
  return value.toFixed(1).replace(/\.0$/, "");
}
