/** Readers of what `ip -j` prints. Pure. */
import * as z from "zod";
import { formatIp, parseIp } from "../../core/ip-range.ts";
import type { SeenLink } from "./mending.ts";

const linksSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    flags: z.array(z.string()).default([]),
    mtu: z.number().default(0),
    master: z.string().optional(),
    addr_info: z
      .array(z.object({ local: z.string().optional(), prefixlen: z.number().optional() }))
      .default([]),
  }),
);

/** `ip -j address show`. */
export function parseAddresses(json: string): Map<string, SeenLink> {
  const links = new Map<string, SeenLink>();
  for (const { ifname, flags, mtu, master, addr_info } of linksSchema.parse(JSON.parse(json || "[]"))) {
    if (ifname === undefined) continue; // filtered entries are printed as {}
    const addresses = addr_info.flatMap(({ local, prefixlen }) => {
      const address = parseIp(local ?? "");
      return address ? [`${formatIp(address)}/${prefixlen}`] : [];
    });
    links.set(ifname, {
      up: flags.includes("UP"),
      mtu,
      addresses,
      ...(master !== undefined && { bridge: master }),
    });
  }
  return links;
}

const neighboursSchema = z.array(
  z.object({ dst: z.string(), dev: z.string().optional(), lladdr: z.string().optional() }),
);

export interface SeenNeighbour {
  address: string;
  device: string;
  macAddress: string;
}

/** `ip -j neighbour show nud permanent`. */
export function parseNeighbours(json: string): SeenNeighbour[] {
  return neighboursSchema
    .parse(JSON.parse(json || "[]"))
    .flatMap(({ dst, dev, lladdr }) =>
      dev === undefined || lladdr === undefined ? [] : [{ address: dst, device: dev, macAddress: lladdr }],
    );
}
