/**
 * When writers to volumes that the host's kernel has mounted must wait for space. A loop device over a full file system
 * fails writes, and the file system in it would lose them, so writers are stopped before: while what they have written
 * and is not on disk yet still fits. Freezing a file system writes all of that out first.
 *
 * A volume's unwritten pages are bounded by the kernel where it can (`boundBytes`, /sys/class/bdi, Linux 6.2), and the space
 * is looked at so often that a writer of `fastestBytes` a second cannot cross the reserve between two looks.
 */

const MiB = 1024 ** 2;

/** Faster than disks are; a loop device writes into the host's memory first. */
const fastestBytes = 2048 * MiB;
/** Time between a look and the end of writing. */
const reactionMs = 250;
/** Of a small file system, no more than this part is kept back. */
const mostOfCapacity = 1 / 6;
/** Between looks: near the reserve; while nothing can lack space; while writers wait; at most. */
export const looksMs = { least: 20, idle: 100, held: 500, most: 2_000 } as const;
/** Writers go on once there is this much more than the reserve. */
const resumeFactor = 1.25;

/** Of one volume: how much may be written and not be on disk yet. */
export function boundBytes(capacityBytes: number): number {
  return Math.floor(Math.min(64 * MiB, Math.max(8 * MiB, capacityBytes / 16)));
}

/** What stays free for what `volumes` have not written out yet. */
export function reserveBytes(capacityBytes: number, volumes: number): number {
  const wanted = (fastestBytes * reactionMs) / 1000 + volumes * boundBytes(capacityBytes);
  return Math.floor(Math.min(wanted, capacityBytes * mostOfCapacity));
}

export interface Space {
  capacityBytes: number;
  freeBytes: number;
  /** Volumes that may be written to, and what all of them together can still take. */
  volumes: number;
  mayTakeBytes: number;
}

/**
 * `held`: writers wait already. `lookAgainMs`: no later than this. What fits whatever is written never waits.
 */
export function judgeSpace(space: Space, held: boolean): { hold: boolean; lookAgainMs: number } {
  const { freeBytes, mayTakeBytes, capacityBytes, volumes } = space;
  if (volumes === 0) return { hold: false, lookAgainMs: looksMs.most };
  // Others write there as well.
  const spareBytes = freeBytes - mayTakeBytes;
  if (spareBytes > 0) return { hold: false, lookAgainMs: msUntil(spareBytes, looksMs.idle) };
  const reserve = reserveBytes(capacityBytes, volumes);
  const headroom = freeBytes - reserve;
  if (headroom <= 0 || (held && freeBytes < reserve * resumeFactor)) {
    return { hold: true, lookAgainMs: looksMs.held };
  }
  return { hold: false, lookAgainMs: msUntil(headroom, looksMs.least) };
}

/** For the fastest writer to take so much; within bounds. */
function msUntil(bytes: number, leastMs: number): number {
  return Math.min(looksMs.most, Math.max(leastMs, Math.floor((bytes / fastestBytes) * 1000)));
}
