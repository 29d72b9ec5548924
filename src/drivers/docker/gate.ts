/**
 * The first process of every container. It waits until the guest's network cards are there and then becomes the user's
 * command, as the user that Docker started it as: nobody's code runs in a container without its cards, and the command
 * is process 1. It is the host's static busybox, mounted read-only, because an image need not have a shell.
 *
 * It waits on a named pipe: reading blocks until somebody has written a line and survives a writer that died before.
 */
import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";

export const busyboxPath = "/.strata/busybox";
export const gatePath = "/.strata/gate";

/**
 * Looks a program up as a shell does, since busybox's own shell would run its own program of the same name. Exits with
 * 127 when there is none.
 */
const become = `set -f
case $1 in
*/*) exec "$@" ;;
esac
IFS=:
for directory in $PATH; do
  [ -f "$directory/$1" ] && [ -x "$directory/$1" ] || continue
  file=$directory/$1
  shift
  exec "$file" "$@"
done
echo "strata: the program $1 is not in this image" >&2
exit 127`;

const waitAndBecome = `until read -r word < ${gatePath}; do :; done\n${become}`;
const sizeAndBecome = `[ "$1" = 0 ] || ${busyboxPath} stty columns "$1" rows "$2"\nshift 2\n${become}`;

/** Arguments of the container's first process, before the command's own. */
export const gateEntrypoint: readonly string[] = [busyboxPath, "sh", "-c", waitAndBecome, "strata-gate"];

/** A command in a container that runs, on a terminal of a size when there is one. */
export function execCommand(command: readonly string[], tty?: { columns: number; rows: number }): string[] {
  const size = [tty?.columns ?? 0, tty?.rows ?? 0].map(String);
  return [busyboxPath, "sh", "-c", sizeAndBecome, "strata-exec", ...size, ...command];
}

/** Is the process still the gate? What a guest makes of its own title harms nobody but itself. */
export async function isAtGate(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return line.startsWith(`${gateEntrypoint.join("\0")}\0`);
}

const openTimeoutMs = 10_000;
const retryMs = 5;

/**
 * Lets the container's first process go on. `pipe` is the host's path of the named pipe.
 * @throws Unavailable when the process has ended, Timeout when it does not come to the gate.
 */
export async function openGate(
  pipe: string,
  { pid, clock, signal }: { pid: number; clock: Clock; signal: AbortSignal },
): Promise<void> {
  const deadline = clock.monotonicMs() + openTimeoutMs;
  for (;;) {
    try {
      // Without a reader this fails at once; with one, the line waits in the pipe until it is read.
      await using file = await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
      await file.write("go\n");
      return;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENXIO") throw cause;
    }
    if (!(await isStarting(pid))) {
      throw new StrataError("Unavailable", "the container ended before its command began");
    }
    if (clock.monotonicMs() > deadline) {
      throw new StrataError("Timeout", `the container did not begin to run within ${openTimeoutMs / 1000} s`);
    }
    await clock.sleep(retryMs, signal);
  }
}

async function isStarting(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return line !== "";
}
