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
async function isAtGate(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return line.startsWith(`${gateEntrypoint.join("\0")}\0`);
}

const openTimeoutMs = 10_000;
const retryMs = 5;
/** A word that was not heard by then is lost. */
const hearingMs = 200;
/** For a process that has just been started to come to the gate, when nobody knows whether it went on already. */
const arrivalMs = 2_000;

export interface GateKey {
  /** Of the container's first process. */
  pid: number;
  clock: Clock;
  signal: AbortSignal;
  /** Somebody was about to open it before, and was perhaps killed afterwards. */
  resumed?: boolean;
  isWaiting?: (pid: number) => Promise<boolean>;
}

/**
 * Lets the container's first process go on, and returns when it has. `pipe` is the host's path of the named pipe.
 * @throws Unavailable when the process ended before, Timeout when it does not go on.
 */
export async function openGate(pipe: string, key: GateKey): Promise<void> {
  const { pid, clock, signal, resumed = false, isWaiting = isAtGate } = key;
  const passedBy = clock.monotonicMs() + arrivalMs;
  const deadline = clock.monotonicMs() + openTimeoutMs;
  while (clock.monotonicMs() < deadline) {
    const heardBy = clock.monotonicMs() + hearingMs;
    if (await sayWord(pipe)) {
      // The reader may just be leaving the pipe of a writer that died, and the word with it: it is said again then.
      while (clock.monotonicMs() < heardBy) {
        if (!(await isWaiting(pid))) return;
        await clock.sleep(retryMs, signal);
      }
    } else {
      if (!(await isStarting(pid))) {
        throw new StrataError("Unavailable", "the container ended before its command began");
      }
      // Nobody reads: it is still on its way (the Engine says "started" before the gate is executed), or went on.
      if (resumed && clock.monotonicMs() > passedBy && !(await isWaiting(pid))) return;
      await clock.sleep(retryMs, signal);
    }
  }
  throw new StrataError("Timeout", `the container did not begin to run within ${openTimeoutMs / 1000} s`);
}

/** False when nobody reads. With a reader, the word waits in the pipe. */
async function sayWord(pipe: string): Promise<boolean> {
  try {
    await using file = await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    await file.write("go\n");
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENXIO" || code === "EPIPE") return false;
    throw cause;
  }
}

async function isStarting(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return line !== "";
}
