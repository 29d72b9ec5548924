import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { run } from "../run.ts";
import { reserveBytes } from "./space-rule.ts";

/** Copying takes as long as there is much in a file, where blocks cannot be shared. */
const longMs = 60 * 60_000;
/** Writers whose reserve a copy never takes. */
const writers = 4;

/**
 * One file of a disk into a new place; shares blocks where the file system can.
 * @throws Unavailable, before anything is written, where it would take the space that writers to mounted volumes may still
 * need; without space.
 */
export async function copyFile(from: string, to: string, signal: AbortSignal): Promise<void> {
  const options = { signal, timeoutMs: longMs };
  const shared = await copy(["--reflink=always", "--", from, to], { ...options, expected: [0, 1] });
  if (shared.status === 0) return;
  await requireRoom((await stat(from)).blocks * 512, dirname(to));
  await copy(["--reflink=never", "--sparse=auto", "--", from, to], options);
}

/** It ends with the daemon: one that went on would write into what the next daemon makes. */
function copy(args: readonly string[], options: Parameters<typeof run>[2]) {
  return run("setpriv", ["--pdeathsig", "KILL", "cp", ...args], options);
}

/** @throws Unavailable when so much more would leave less than writers may need. */
export async function requireRoom(bytes: number, directory: string): Promise<void> {
  const { blocks, bavail, bsize } = await statfs(directory);
  const kept = reserveBytes(blocks * bsize, writers);
  const free = bavail * bsize;
  if (bytes <= free - kept) return;
  throw new StrataError(
    "Unavailable",
    `there is no space left for ${formatBytes(bytes)} more: ${directory} has ${formatBytes(free)} free, of which ` +
      `${formatBytes(kept)} are kept for what is being written`,
  );
}
