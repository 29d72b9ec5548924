/**
 * Addresses and ranges as read from their texts. A policy comes as a whole each time, thousands of texts of which all but
 * one were there before, so what was read is kept; past the limit all is forgotten and read again.
 */
import { formatRange, type IpRange, parseIp, parseRange } from "../../../core/ip-range.ts";

const maxTexts = 50_000;

function remember<T>(read: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    const before = known.get(text);
    if (before !== undefined) return before;
    const value = read(text);
    if (known.size >= maxTexts) known.clear();
    known.set(text, value);
    return value;
  };
}

export interface KnownRange {
  range: IpRange;
  /** In canonical form, so that the same range is the same text. */
  text: string;
}

/** Undefined when it is no range, or does not start at its first address. */
export const rangeOf = remember((text): KnownRange | undefined => {
  const parsed = parseRange(text);
  return parsed?.exact ? { range: parsed.range, text: formatRange(parsed.range) } : undefined;
});

/** Undefined when it is no address. */
export const addressOf = remember(parseIp);
