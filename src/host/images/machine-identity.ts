/**
 * What makes a machine this one and no other, in a root tree: an image that was taken of a running machine must not have
 * it, or all that start from it would be taken for each other. What is missing, a guest makes anew at its first start.
 */

/** Emptied rather than left out: systemd fills it in, and takes a missing one for a first boot of everything. */
const emptied = new Set(["etc/machine-id"]);

const leftOut = [
  /^etc\/ssh\/ssh_host_[^/]+_key(\.pub)?$/,
  /^etc\/hostname$/,
  /^var\/lib\/dbus\/machine-id$/,
  /^var\/lib\/systemd\/(random-seed|credential\.secret)$/,
  // What cloud-init has done for this instance, and as whom.
  /^var\/lib\/cloud\/(instance|(instances|data|sem)\/.+)$/,
];

/** What becomes of the entry at `path`; undefined: it stays. */
export function identityFate(path: string): "emptied" | "left-out" | undefined {
  if (emptied.has(path)) return "emptied";
  return leftOut.some((pattern) => pattern.test(path)) ? "left-out" : undefined;
}
