/** What the kernel tells about links, routes and addresses in /proc/net: pure readers, no process needed. */
import { contains, type Ipv4Range, overlaps, parseIpv4 } from "./ipv4.ts";

export interface Route {
  /** "*" for routes that refuse. */
  device: string;
  range: Ipv4Range;
  /** 0: directly connected. */
  gateway: number;
}

/** `/proc/net/route`: the main table. */
export function parseRoutes(text: string): Route[] {
  const routes: Route[] = [];
  for (const line of text.split("\n").slice(1)) {
    const [device, destination, gateway, , , , , mask] = line.split(/\s+/);
    if (!device || !destination || !gateway || !mask) continue;
    routes.push({
      device,
      range: { base: fromHex(destination), prefixLength: countBits(fromHex(mask)) },
      gateway: fromHex(gateway),
    });
  }
  return routes;
}

/** `/proc/net/dev`: names of all links. */
export function parseLinks(text: string): string[] {
  return text
    .split("\n")
    .map((line) => /^\s*([^\s:]+):\s/.exec(line)?.[1])
    .filter((name): name is string => name !== undefined);
}

/** `/proc/net/fib_trie`: addresses of this namespace itself. */
export function parseLocalAddresses(text: string): Set<number> {
  const found = new Set<number>();
  let last: number | undefined;
  for (const line of text.split("\n")) {
    const address = /^\s*\|-- ([\d.]+)$/.exec(line)?.[1];
    if (address !== undefined) last = parseIpv4(address);
    else if (last !== undefined && /^\s*\/32 host LOCAL$/.test(line)) found.add(last);
  }
  return found;
}

/** `/proc/net/snmp`: whether this namespace forwards. */
export function parseForwarding(text: string): boolean {
  const [names, values] = text
    .split("\n")
    .filter((line) => line.startsWith("Ip:"))
    .map((line) => line.split(" "));
  return values?.[names?.indexOf("Forwarding") ?? -1] === "1";
}

/** A route by another interface that would be hidden by, or hide, `range`. The default route hides nothing. */
export function findConflict(
  routes: readonly Route[],
  range: Ipv4Range,
  ownDevice: string,
): Route | undefined {
  return routes.find(
    (route) => route.range.prefixLength > 0 && route.device !== ownDevice && overlaps(route.range, range),
  );
}

export function hasRoute(routes: readonly Route[], wanted: Route): boolean {
  return routes.some(
    (route) =>
      route.device === wanted.device &&
      route.gateway === wanted.gateway &&
      route.range.prefixLength === wanted.range.prefixLength &&
      contains(route.range, wanted.range.base),
  );
}

/** Little-endian, as on every architecture we run on. */
function fromHex(text: string): number {
  return Buffer.from(text, "hex").readUInt32LE(0);
}

function countBits(mask: number): number {
  return mask.toString(2).replaceAll("0", "").length;
}
