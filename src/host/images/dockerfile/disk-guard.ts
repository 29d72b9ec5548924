/** Ends what writes without bound before the host's disk is full, which guests and control plane would suffer from. */
import { statfs } from "node:fs/promises";
import type { Clock } from "../../../core/clock.ts";
import { StrataError } from "../../../core/errors.ts";
import { formatBytes } from "../../../core/units.ts";

const intervalMs = 1_000;
const reserveBytes = 2 * 1024 ** 3;
const reserveShare = 0.05;

/** Of a file system: what is free for everybody, and all of it. */
export interface Space {
  freeBytes: number;
  totalBytes: number;
}

/** Less than this must not be left: 5 %, and no more than 2 GiB. */
export function reserveOf({ totalBytes }: Space): number {
  return Math.min(reserveBytes, totalBytes * reserveShare);
}

/** The signal aborts with Invalid when the file system of `path` has less than its reserve left. One that cannot be read has. */
export function guardSpace(
  path: string,
  clock: Clock,
  look: (path: string) => Promise<Space | undefined> = spaceOf,
): Disposable & { signal: AbortSignal } {
  const controller = new AbortController();
  let ended = false;
  let cancel = () => {};
  const check = async () => {
    const space = await look(path);
    if (ended) return;
    if (space && space.freeBytes < reserveOf(space)) {
      const left = formatBytes(space.freeBytes);
      const message = `the build was ended because it leaves only ${left} on the file system of ${path}; make room there, or let its steps write less`;
      controller.abort(new StrataError("Invalid", message));
    } else cancel = clock.after(intervalMs, () => void check());
  };
  void check();
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      ended = true;
      cancel();
    },
  };
}

async function spaceOf(path: string): Promise<Space | undefined> {
  const found = await statfs(path).catch(() => undefined);
  return found && { freeBytes: found.bavail * found.bsize, totalBytes: found.blocks * found.bsize };
}
