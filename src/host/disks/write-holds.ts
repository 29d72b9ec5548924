/**
 * Keeps writers from mounted volumes, and from the roots of containers, while there is no space, and lets them go on: by freezing the file system, which
 * writes out first what it has taken on. Reading goes on. Held with the volume's lock, as everything that mounts,
 * unmounts, grows or copies it, each of which thaws it before.
 */
import { rm, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { exists } from "./data-disks.ts";
import { findDataFile } from "./data-files.ts";
import type { Freezer } from "./freezing.ts";
import { mountPoints } from "./mounts.ts";

/** Where a volume's file is, and what is left there. */
export interface VolumeRoom {
  /** The same for all volumes that share the space. */
  place: number;
  capacityBytes: number;
  freeBytes: number;
  /** What the volume can still take: what it has not written yet; all of it where blocks may be shared. */
  mayTakeBytes: number;
}

/** Where a volume's file system is mounted, and a container's writable layer. */
export const heldMounts = ["tree", "volume"] as const;

/** @throws NotFound without one; Unavailable while its pool is not there. */
async function findMountedFile(directory: string): Promise<string> {
  const layer = join(directory, "volume.img");
  return (await exists(layer)) ? layer : findDataFile(directory);
}

/** Numbers of file systems (linux/magic.h) on which a block that is written may be another file's as well: xfs, btrfs. */
const sharing = new Set([0x58465342, 0x9123683e]);

export async function roomOf(directory: string): Promise<VolumeRoom> {
  const path = await findMountedFile(directory);
  const [{ size, blocks, dev }, space] = await Promise.all([stat(path), statfs(dirname(path))]);
  const sharesBlocks = sharing.has(space.type >>> 0);
  return {
    place: dev,
    capacityBytes: space.blocks * space.bsize,
    freeBytes: space.bavail * space.bsize,
    mayTakeBytes: sharesBlocks ? size : Math.max(0, size - blocks * 512),
  };
}

/** Says, in a volume's directory, that its writers are held: to whoever comes after a daemon that was killed. */
const heldMark = "held";

/** Which volumes are held, and how. All but `has` and `list` with the lock of the volumes. */
export class WriteHolds {
  readonly #held = new Set<string>();
  readonly #directoryOf: (uid: string) => string;
  readonly #freezer: Freezer;
  readonly #mounted: () => Promise<ReadonlySet<string>>;

  /** `mounted` tells this host's mount points. */
  constructor(directoryOf: (uid: string) => string, freezer: Freezer, mounted = mountPoints) {
    this.#directoryOf = directoryOf;
    this.#freezer = freezer;
    this.#mounted = mounted;
  }

  has(uid: string): boolean {
    return this.#held.has(uid);
  }

  list(): string[] {
    return [...this.#held];
  }

  /** Whether a predecessor held it, or was about to. */
  wasHeld(uid: string): Promise<boolean> {
    return exists(this.#markOf(uid));
  }

  /** What is not mounted is not held, whatever its mark says. */
  async forget(uid: string): Promise<void> {
    await rm(this.#markOf(uid), { force: true });
  }

  /** It counts as held from now on; `holdAgain` makes it so. */
  adopt(uid: string): void {
    this.#held.add(uid);
  }

  /** Holds who is counted as held. Whoever cannot be held is not counted any more, so that the next look holds it anew. */
  async holdAgain(uid: string): Promise<void> {
    if (!this.#held.has(uid)) return;
    const frozen = await this.#freeze(uid).catch(() => false);
    if (frozen) return;
    this.#held.delete(uid);
    await this.forget(uid).catch(() => {});
  }

  /** Idempotent; what is not mounted has no writers. */
  async hold(uid: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#held.has(uid) && (await this.#freeze(uid))) this.#held.add(uid);
  }

  async thaw(uid: string): Promise<void> {
    if (!this.#held.has(uid)) return;
    await this.#letWrite(uid);
    this.#held.delete(uid);
    await this.forget(uid);
  }

  /** Who was held is held again at once, whatever becomes of `use`: there is still no space. */
  async whileThawed<Result>(uids: readonly string[], use: () => Promise<Result>): Promise<Result> {
    const held = uids.filter((uid) => this.#held.has(uid));
    try {
      for (const uid of held) await this.#letWrite(uid);
      return await use();
    } finally {
      for (const uid of held) await this.holdAgain(uid);
    }
  }

  /** False for what is not mounted. */
  async #freeze(uid: string): Promise<boolean> {
    const tree = await this.#treeOf(uid);
    if (tree === undefined) return false;
    // Where even a mark finds no space, to hold is what matters.
    await writeFile(this.#markOf(uid), "").catch(() => {});
    await this.#freezer.freeze(tree);
    return true;
  }

  async #letWrite(uid: string): Promise<void> {
    const tree = await this.#treeOf(uid);
    if (tree !== undefined) await this.#freezer.thaw(tree);
  }

  /** Undefined while it is not mounted. */
  async #treeOf(uid: string): Promise<string | undefined> {
    const mounted = await this.#mounted();
    return heldMounts.map((name) => join(this.#directoryOf(uid), name)).find((point) => mounted.has(point));
  }

  #markOf(uid: string): string {
    return join(this.#directoryOf(uid), heldMark);
  }
}
