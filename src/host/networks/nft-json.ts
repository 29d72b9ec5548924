import * as z from "zod";

const listingSchema = z.object({ nftables: z.array(z.unknown()) });

/** The entries of what `nft -j` printed; none when it printed nothing. Several commands print one object each. */
export function parseJson(listing: string): unknown[] {
  return listing
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .flatMap((line) => listingSchema.parse(JSON.parse(line)).nftables);
}
