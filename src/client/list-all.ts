import { hasCode } from "../core/errors.ts";
import type { ResourcePage } from "./client.ts";

/** Times that one listing is begun anew when the history of what it shows vanishes under it. */
const maxListings = 5;

/** All pages of one listing as one, of one revision. @throws what `page` throws; Compacted when it vanishes again and again. */
export async function listAll<R>(
  page: (position: { after?: string }) => Promise<ResourcePage<R>>,
): Promise<ResourcePage<R>> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await allPages(page);
    } catch (error) {
      if (attempt === maxListings || !hasCode(error, "Compacted")) throw error;
    }
  }
}

async function allPages<R>(
  page: (position: { after?: string }) => Promise<ResourcePage<R>>,
): Promise<ResourcePage<R>> {
  const items: R[] = [];
  for (let position = {}; ; ) {
    const { items: some, revision, next } = await page(position);
    items.push(...some);
    if (next === undefined) return { items, revision };
    position = { after: next };
  }
}
