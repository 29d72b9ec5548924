/** Addresses and ranges as users write them, checked and brought into their one canonical form. */
import * as z from "zod";
import { contains, formatIp, formatRange, type IpFamily, parseIp, parseRange } from "../core/ip-range.ts";

/** Ranges that everybody may use inside (RFC 1918), and the block of locally assigned IPv6 ranges (RFC 4193). */
const privateRanges: Record<IpFamily, readonly string[]> = {
  4: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
  6: ["fd00::/8"],
};

interface RangeRule {
  /** Prefix lengths from the largest range to the smallest. */
  widest: number;
  narrowest: number;
  example: string;
}

/** A range of a network's own: private, and of a length within bounds. */
export function privateRangeSchema(family: IpFamily, rule: RangeRule) {
  return z.string().transform((text, context) => {
    const refuse = (message: string, allowed: string = rule.example) => {
      context.addIssue({ code: "custom", message, params: { allowed } });
      return z.NEVER;
    };
    const parsed = parseRange(text);
    if (!parsed || parsed.range.family !== family) {
      return refuse(`must be an IPv${family} range such as ${rule.example}`);
    }
    const { range, exact } = parsed;
    if (!exact) return refuse(`must start at its first address: ${formatRange(range)}`, formatRange(range));
    if (range.prefixLength < rule.widest || range.prefixLength > rule.narrowest) {
      return refuse(
        `must be of a length from /${rule.widest} to /${rule.narrowest}, such as ${rule.example}`,
      );
    }
    const inside = privateRanges[family].some((one) => {
      const outer = parseRange(one)?.range;
      return outer !== undefined && contains(outer, range);
    });
    const parts = privateRanges[family].join(", ");
    if (!inside) return refuse(`must be part of ${parts}`, parts);
    return formatRange(range);
  });
}

/** Any range of either family, as in a rule or a route. */
export const rangeSchema = z.string().transform((text, context) => {
  const parsed = parseRange(text);
  if (parsed?.exact) return formatRange(parsed.range);
  const message = parsed ? "must start at its first address" : "must be a range of IPv4 or IPv6";
  const allowed = parsed
    ? formatRange(parsed.range)
    : "10.0.0.0/8, 203.0.113.7/32, 0.0.0.0/0, ::/0 and the like";
  context.addIssue({ code: "custom", message: `${message}: ${allowed}`, params: { allowed } });
  return z.NEVER;
});

/** One address. */
export function addressSchema(family: IpFamily) {
  return z.string().transform((text, context) => {
    const address = parseIp(text);
    if (address?.family === family) return formatIp(address);
    const example = family === 4 ? "10.20.0.7" : "fd12:3456:789a::7";
    const message = `must be an IPv${family} address such as ${example}`;
    context.addIssue({ code: "custom", message, params: { allowed: example } });
    return z.NEVER;
  });
}
