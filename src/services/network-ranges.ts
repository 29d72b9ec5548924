import { type IpRange, parseRange } from "../core/ip-range.ts";
import type { Network } from "../kinds/network.ts";

/** The network's ranges, of both families. */
export function rangesOf(network: Network): IpRange[] {
  const { cidr = "", ipv6Cidr = "" } = network.status;
  return [cidr, ipv6Cidr].flatMap((text) => parseRange(text)?.range ?? []);
}
