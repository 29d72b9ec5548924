/** What the kernel tells about routes in /proc/net: pure readers, no process needed. */
import { type IpRange, overlaps } from "../../core/ip-range.ts";

export interface Route {
  /** "*" for routes that refuse. */
  device: string;
  range: IpRange;
}

/** `/proc/net/route`: the main table of IPv4. */
export function parseRoutes(text: string): Route[] {
  const routes: Route[] = [];
  for (const line of text.split("\n").slice(1)) {
    const [device, destination, , , , , , mask] = line.split(/\s+/);
    if (!device || !destination || !mask) continue;
    routes.push({
      device,
      range: { family: 4, base: BigInt(fromHex(destination)), prefixLength: countBits(fromHex(mask)) },
    });
  }
  return routes;
}

/** `/proc/net/ipv6_route`: whether a default route leads to another device than loopback, and to which. */
export function defaultDevices6(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([destination, length]) => /^0{32}$/.test(destination ?? "") && length === "00")
    .map((fields) => fields[9] ?? "")
    .filter((device) => device !== "" && device !== "lo");
}

/** A route by another interface that would be hidden by, or hide, `range`. The default route hides nothing. */
export function findConflict(routes: readonly Route[], range: IpRange, ownDevice: string): Route | undefined {
  return routes.find(
    (route) => route.range.prefixLength > 0 && route.device !== ownDevice && overlaps(route.range, range),
  );
}

/** Little-endian, as on every architecture we run on. */
function fromHex(text: string): number {
  return Buffer.from(text, "hex").readUInt32LE(0);
}

function countBits(mask: number): number {
  return mask.toString(2).replaceAll("0", "").length;
}
