/** From what a person types to a resource: a name, or the beginning of a uid (at least 4 characters). */
import type { Client } from "../client/client.ts";
import { StrataError } from "../core/errors.ts";
import { namePattern } from "../core/ids.ts";
import { didYouMean } from "../core/spelling.ts";
import type { Kind, Resource } from "../kinds/kind.ts";

const shortestId = 4;
const idPattern = /^[0-9a-hjkmnp-tv-z]{4,16}$/;

/** `KeyPair` as `key pair`. */
export function kindTitle(kind: Pick<Kind, "name">): string {
  return kind.name.replace(/(?<=[a-z])([A-Z])/g, " $1").toLowerCase();
}

/**
 * A name wins over an id. In `project` for kinds of project scope.
 * @throws NotFound with the closest name; Invalid when several ids begin so.
 */
export async function resolve<S, T>(
  client: Client,
  kind: Kind<S, T>,
  project: string,
  text: string,
  signal: AbortSignal,
): Promise<Resource<S, T>> {
  const scope = kind.scope === "project" ? { project } : {};
  if (namePattern.test(text)) {
    const named = await client.get(kind, { ...scope, name: text }, { signal });
    if (named) return named;
  }
  const { items } = await client.list(kind, scope, { signal });
  const matching = idPattern.test(text) ? items.filter((item) => item.metadata.uid.startsWith(text)) : [];
  if (matching.length === 1 && matching[0]) return matching[0];
  const where = kind.scope === "project" ? ` in project ${project}` : "";
  if (matching.length > 1) {
    const names = matching.map((item) => `${item.metadata.name} (${item.metadata.uid})`).join(", ");
    throw new StrataError("Invalid", `"${text}" begins the id of several: ${names}; give more of it`);
  }
  const short =
    /^[0-9a-z]+$/.test(text) && text.length < shortestId ? ` (ids need ${shortestId} characters)` : "";
  const guess = didYouMean(
    text,
    items.map((item) => item.metadata.name),
  );
  throw new StrataError("NotFound", `there is no ${kindTitle(kind)} "${text}"${where}${guess || short}`);
}
