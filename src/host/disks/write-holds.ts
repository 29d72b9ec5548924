/**
 * Keeps writers from mounted volumes while there is no space, and lets them go on: by freezing the file system, which
 * writes out first what it has taken on. Reading goes on. Held with the volume's lock, as everything that mounts,
 * unmounts, grows or copies it, each of which thaws it before.
 */
import { stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";
import { thaw } from "./data-disks.ts";
import { findDataFile } from "./data-files.ts";
import { mountPoints } from "./mounts.ts";

/** All that was written comes on disk first. */
const freezeMs = 10 * 60_000;

/** Where a volume's file is, and what is left there. */
export interface VolumeRoom {
  /** The same for all volumes that share the space. */
  place: number;
  capacityBytes: number;
  freeBytes: number;
  /** What the volume can still take: what it has not written yet; all of it where blocks may be shared. */
  mayTakeBytes: number;
}

/** Numbers of file systems (linux/magic.h) on which a block that is written may be another file's as well: xfs, btrfs. */
const sharing = new Set([0x58465342, 0x9123683e]);

export async function roomOf(directory: string): Promise<VolumeRoom> {
  const path = await findDataFile(directory);
  const [{ size, blocks, dev }, space] = await Promise.all([stat(path), statfs(dirname(path))]);
  const sharesBlocks = sharing.has(space.type >>> 0);
  return {
    place: dev,
    capacityBytes: space.blocks * space.bsize,
    freeBytes: space.bavail * space.bsize,
    mayTakeBytes: sharesBlocks ? size : Math.max(0, size - blocks * 512),
  };
}

/** Which volumes are held, and how. All but `has` and `list` with the lock of the volumes. */
export class WriteHolds {
  readonly #held = new Set<string>();
  readonly #directoryOf: (uid: string) => string;

  constructor(directoryOf: (uid: string) => string) {
    this.#directoryOf = directoryOf;
  }

  has(uid: string): boolean {
    return this.#held.has(uid);
  }

  list(): string[] {
    return [...this.#held];
  }

  /** It is held already, by a predecessor. */
  adopt(uid: string): void {
    this.#held.add(uid);
  }

  /** Idempotent. */
  async hold(uid: string, signal: AbortSignal): Promise<void> {
    if (!this.#held.has(uid) && (await freeze(this.#directoryOf(uid), signal))) this.#held.add(uid);
  }

  async thaw(uid: string): Promise<void> {
    if (!this.#held.has(uid)) return;
    await letWrite(this.#directoryOf(uid));
    this.#held.delete(uid);
  }

  /** Who was held is held again at once: there is still no space. */
  async whileThawed<Result>(
    uids: readonly string[],
    signal: AbortSignal,
    use: () => Promise<Result>,
  ): Promise<Result> {
    const held = uids.filter((uid) => this.#held.has(uid));
    for (const uid of held) await letWrite(this.#directoryOf(uid));
    try {
      return await use();
    } finally {
      for (const uid of held) {
        if (!(await freeze(this.#directoryOf(uid), signal))) this.#held.delete(uid);
      }
    }
  }
}

/** Idempotent; what is not mounted has no writers. False then. */
async function freeze(directory: string, signal: AbortSignal): Promise<boolean> {
  const tree = join(directory, "tree");
  if (!(await mountPoints()).has(tree)) return false;
  const options = { signal, expected: [0, 1], timeoutMs: freezeMs };
  const { status, stderr } = await run("fsfreeze", ["--freeze", tree], options);
  // Busy: it is frozen already.
  if (status === 0 || /busy/i.test(stderr)) return true;
  throw new StrataError("Internal", "the volume's file system cannot be frozen", { detail: stderr.trim() });
}

async function letWrite(directory: string): Promise<void> {
  const tree = join(directory, "tree");
  if ((await mountPoints()).has(tree)) await thaw(tree);
}
