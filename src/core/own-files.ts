/**
 * Files of the checkout that are not code: scripts, tables, profiles. Modules name them from here, and never by their own
 * place, because the daemon's modules are joined in few files elsewhere (src/bin/daemon-bundle.ts).
 */

/** Two directories up from this module, and from the joined ones. */
const checkout = new URL("../../", import.meta.url);

/** A file or directory by its path in the checkout, with forward slashes; "" is the checkout itself. */
export function ownFile(path: string): URL {
  return new URL(path, checkout);
}
