/**
 * Is an xfs whole that nobody has mounted? `xfs_repair -n` reads everything, but not the journal: what a crash or a freeze
 * (every snapshot) left in it is missing from what it looks at, and it reports damage that is none. No tool replays an xfs
 * journal in user space, so the kernel does, and then all is looked at once more.
 */
import { dirname } from "node:path";
import { run } from "../run.ts";

const longMs = 60 * 60_000;
/** What xfs_repair says of a journal that is not empty; its exit status does not tell. */
const journalNotEmpty = /valuable metadata changes in a log/;
/** In mounts of its own, which end with the process; whatever is killed, nothing stays mounted. */
const replay = 'mount -o loop,nouuid,nosuid,nodev,noexec "$1" "$2"; umount "$2"';

/** @returns what is wrong, or undefined. Changes nothing but what a mount would, and that only with a journal to replay. */
export async function xfsFault(path: string, signal: AbortSignal): Promise<string | undefined> {
  const options = { signal, timeoutMs: longMs };
  const examine = () => run("xfs_repair", ["-n", "-f", path], { ...options, expected: [0, 1, 2] });
  const first = await examine();
  if (first.status === 0) return undefined;
  if (!journalNotEmpty.test(first.stdout + first.stderr)) return `xfs_repair: ${lastLine(first.stderr)}`;
  const args = ["--mount", "--propagation", "private", "sh", "-euc", replay, "sh", path, dirname(path)];
  const replayed = await run("unshare", args, { ...options, expected: [0, 1, 32] });
  if (replayed.status !== 0) return `its journal cannot be replayed: ${lastLine(replayed.stderr)}`;
  const { status, stderr } = await examine();
  return status === 0 ? undefined : `xfs_repair: ${lastLine(stderr)}`;
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
