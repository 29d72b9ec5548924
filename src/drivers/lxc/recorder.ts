/**
 * The process that runs LXC's monitor and writes down what becomes of the guest, so that it is known also when no
 * daemon was there to see it. It is a shell, because it stays as long as the guest and must be small; the script is
 * constant, and data comes as arguments only. It leaves the daemon's session and cgroup before it does anything else.
 *
 * In its directory it writes `init` (`RUN PID`, again after each reboot from inside) and, at the end, `exit`.
 * LXC says in its log alone how a guest ended (its exit status is 0 for an init that was killed): the log goes through
 * a pipe to this script, which keeps the few lines that matter, so it cannot fill the disk.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { StrataError } from "../../core/errors.ts";
import { ownFile } from "../../core/own-files.ts";
import { sealed } from "./sealed.ts";

export interface RecorderOptions {
  bash: string;
  runId: string;
  /** Where it finds `run` and writes `init` and `exit`. */
  dir: string;
  /** Files to which it writes its pid to enter its cgroup. */
  procsFiles: readonly string[];
  /** PATH of the command. */
  path: string;
  /** The monitor, with its log going to standard output. */
  command: readonly string[];
}

/**
 * Not run as a file: a shell reads a file as it goes, and this one may be replaced meanwhile. It goes through the
 * environment, which the script empties of it, so that a list of processes stays readable.
 */
const script = readFileSync(ownFile("src/drivers/lxc/recorder.sh"), "utf8");

/** Starts a recorder; it goes on by itself. @throws Unavailable when no process can be made. */
export function startRecorder(options: RecorderOptions): Promise<void> {
  const { bash, runId, dir, path, procsFiles, command } = options;
  const shell = [
    "-c",
    'eval "$script"',
    "strata-recorder",
    runId,
    dir,
    path,
    ...procsFiles,
    "--",
    ...command,
  ];
  const { file, args } = sealed({ bash, file: "/bin/sh", args: shell });
  const child = spawn(file, args, {
    detached: true,
    stdio: "ignore",
    cwd: "/",
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C", script },
  });
  child.unref();
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (cause) => {
      reject(new StrataError("Unavailable", "cannot start a process for the container", { cause }));
    });
  });
}

/** How LXC's monitor ended, as the recorder wrote it down. */
export interface RecordedExit {
  runId: string;
  /** Of lxc-start; 128 and more when it was killed. */
  monitorStatus: number;
  /** How the guest's init ended; undefined when it ended with status 0 or never began. */
  init?: { signal: number } | { status: number };
  /** LXC's error messages, the cause first. */
  errors: string[];
}

/** Reads the recorder's `exit`; undefined when it is missing or not yet complete. */
export function parseExit(text: string): RecordedExit | undefined {
  if (!text.endsWith("\n.\n")) return undefined;
  const [head = "", ended = "", ...rest] = text.slice(0, -2).split("\n");
  const [runId = "", status = ""] = head.split(" ");
  const number = Number(/\((\d+)\)\s*$/.exec(ended)?.[1] ?? Number.NaN);
  const init = ended.startsWith("signal")
    ? { signal: number }
    : ended.startsWith("error")
      ? { status: number }
      : undefined;
  return {
    runId,
    monitorStatus: Number(status),
    ...(init === undefined ? {} : { init }),
    errors: rest.filter((line) => line !== ""),
  };
}

/** Reads the recorder's `init`; undefined when it is missing or not yet complete. */
export function parseInit(text: string): { runId: string; pid: number } | undefined {
  const match = /^(\S+) (\d+)\n$/.exec(text);
  return match?.[1] === undefined ? undefined : { runId: match[1], pid: Number(match[2]) };
}
