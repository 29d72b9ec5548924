/**
 * How QEMU is run: in its control group from before its first instruction, in the network's namespace, as a user of its
 * own without any capability, in a session of its own, with a keeper process that writes down how it ended.
 *
 * The keeper is a shell that waits for QEMU and writes its exit status into a file. So a guest's own power-off (status
 * 0) is told from a crash also when it happens while no daemon runs, memory is free at once in either case, and nobody
 * needs a connection to QEMU to know. The keeper has QEMU's user id, no capabilities, and lives in the same group.
 */
import { constants } from "node:os";
import type { ExitReason } from "../driver.ts";

/** Descriptors below this one are taken: standard streams, the keeper's status file, the keeper's copy of stderr. */
export const firstInheritedFd = 5;

export interface Confinement {
  /** `cgroup.procs` files of the guest's group. */
  cgroupFiles: readonly string[];
  /** Path of the network's namespace; undefined: a new one with nothing in it. */
  netns: string | undefined;
  /** Used for the group id as well. Belongs to this guest alone. */
  processUid: number;
  /** Further groups, such as kvm. */
  groups: readonly number[];
}

// Neither script contains data: everything comes as positional arguments.
// The daemon is protected from the host's OOM killer, the guest is not; a host where nobody may change that goes on.
const enterScript = `
ulimit -c 0
echo 0 2>/dev/null > /proc/self/oom_score_adj
count=$1; shift
while [ "$count" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; count=$((count - 1)); done
exec "$@"`;
// The shell's own words about a killed child are not QEMU's: its standard error is closed, QEMU keeps the log.
const keepScript = `
exec 4>&2 2>/dev/null
(exec "$@" 2>&4 4>&- 3>&-)
echo $? >&3`;

/** The whole argument vector; the first element is the program. */
export function confinedCommand(confinement: Confinement, command: readonly string[]): string[] {
  const { cgroupFiles, netns, processUid, groups } = confinement;
  return [
    ...["sh", "-c", enterScript, "strata-enter", String(cgroupFiles.length), ...cgroupFiles],
    ...(netns === undefined ? ["unshare", "--net", "--"] : ["nsenter", `--net=${netns}`, "--"]),
    ...["setpriv", `--reuid=${processUid}`, `--regid=${processUid}`],
    groups.length === 0 ? "--clear-groups" : `--groups=${groups.join(",")}`,
    ...["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"],
    ...["sh", "-c", keepScript, "strata-keep", ...command],
  ];
}

/** What is known of a run that is over. */
export interface RunEnd {
  /** We had asked for it. */
  stopRequested: boolean;
  /** The host was restarted since the run began. */
  hostRestarted: boolean;
  /** Nobody saw it start. */
  interrupted: boolean;
  /** What the keeper wrote; undefined when it was killed too. */
  status: number | undefined;
  /** What QEMU printed on standard error. */
  log: string;
}

const panicStatus = 1;

/** Why a run ended, for the guest's owner. */
export function explainEnd({ stopRequested, hostRestarted, interrupted, status, log }: RunEnd): {
  reason: ExitReason;
  message: string;
} {
  if (stopRequested) return { reason: "requested", message: "stopped as requested" };
  const crash = (message: string) => ({ reason: "crash" as const, message });
  if (hostRestarted) return crash("the host restarted or lost power while the guest was running");
  if (status === undefined) {
    return crash(interrupted ? "its start was interrupted" : "QEMU was killed from outside");
  }
  const words = lastWords(log);
  if (status === 0) {
    // SIGTERM and the like end QEMU in order, with status 0 and a line that says so.
    if (/terminating on signal/.test(words)) return crash("QEMU was ended from outside");
    return { reason: "poweroff", message: "the guest shut itself down" };
  }
  if (status === panicStatus && words === "") return crash("the guest's kernel panicked");
  const because = words === "" ? "" : `: ${words}`;
  if (status > 128) return crash(`QEMU was killed by ${signalName(status - 128)}${because}`);
  return crash(`QEMU failed with status ${status}${because}`);
}

/** The last lines of QEMU's log, without time stamps, at most 300 characters. */
export function lastWords(log: string): string {
  const lines = log
    .split("\n")
    .map((line) => line.replace(/^\d{4}-\d\d-\d\dT\S+Z /, "").replace(/^qemu-system-\w+: /, ""))
    .filter((line) => line !== "" && !/^warning:/.test(line));
  return lines.slice(-3).join("; ").slice(-300);
}

function signalName(signal: number): string {
  const found = Object.entries(constants.signals).find(([, number]) => number === signal);
  return found?.[0] ?? `signal ${signal}`;
}
