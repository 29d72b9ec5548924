/** The daemon as a process: how it is started, found again and stopped, with systemd and without. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { fileURLToPath } from "node:url";
import type { Client } from "../client/client.ts";
import { createHttpClient } from "../client/http-client.ts";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { ownFile } from "../core/own-files.ts";
import { run } from "../host/run.ts";
import { hostKind } from "../kinds/host.ts";
import { compileCacheDirectory } from "./compile-cache.ts";
import { isMachineDaemon, type Settings, settingsEnvironment } from "./settings.ts";

const daemonMain = fileURLToPath(ownFile("src/bin/daemon.ts"));
const startTimeoutMs = 60_000;
const stopTimeoutMs = 20_000;
const maxLogBytes = 10 * 1024 * 1024;
const pollMs = 25;
/** The exit status of a daemon that finds its state directory taken. */
export const exitAnotherRuns = 75;
export const unitName = "strata.service";
const unitFile = `/etc/systemd/system/${unitName}`;

/**
 * An idle daemon stays small: its young generation is, because what is allocated under load is mostly short-lived JSON, and
 * the old one is collected when it has grown by a fifth, and then moved together where a fifth of it is holes
 * (docs/benchmarks.md has what that costs).
 */
const memoryFlags = [
  "--max-semi-space-size=2",
  "--max-old-space-size=512",
  "--heap-growing-percent=20",
  "--memory-saver-mode",
];
/**
 * The C library's: one arena for all threads, instead of one each whose free pages no other one uses; and free pages go
 * back to the system when there is a megabyte of them, those of large pieces at once. (Lower limits make listings slower.)
 */
export const memoryEnvironment = {
  MALLOC_ARENA_MAX: "1",
  MALLOC_MMAP_THRESHOLD_: "262144",
  MALLOC_TRIM_THRESHOLD_: "1048576",
  MALLOC_TOP_PAD_: "65536",
} as const;

export function daemonCommand(): { command: string; args: string[] } {
  return { command: process.execPath, args: [...memoryFlags, daemonMain] };
}

export function daemonEnvironment(settings: Settings): Record<string, string> {
  return {
    ...settingsEnvironment(settings),
    ...memoryEnvironment,
    NODE_COMPILE_CACHE: compileCacheDirectory,
  };
}

interface FoundDaemon {
  pid: number;
  httpsPort: number;
}

/** The daemon of these settings, if it runs. The pid file alone proves nothing: pids are used again. */
export function findDaemon(settings: Settings): FoundDaemon | undefined {
  try {
    const [pid = "", startTime = "", httpsPort = ""] = readFileSync(settings.pidFile, "utf8")
      .trim()
      .split(" ");
    if (startTimeOf(Number(pid)) !== startTime) return undefined;
    return { pid: Number(pid), httpsPort: Number(httpsPort) };
  } catch {
    return undefined;
  }
}

/** Clock ticks from boot to the start of the process: with the pid, it identifies one process. */
export function startTimeOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may hold anything; field 22 is the twentieth after it.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

/** True when the API answers and knows this host. */
export async function answers(settings: Settings, clock: Clock): Promise<boolean> {
  if (!existsSync(settings.socketPath)) return false;
  const client: Client = createHttpClient({ socketPath: settings.socketPath });
  const abort = new AbortController();
  const cancel = clock.after(2_000, () => abort.abort(new StrataError("Timeout", "no answer")));
  try {
    return (await client.listPage(hostKind, { limit: 1 }, { signal: abort.signal })).items.length > 0;
  } catch {
    return false;
  } finally {
    cancel();
  }
}

/** systemd keeps the machine's one daemon; those with settings of their own belong to whoever starts them. */
export function underSystemd(settings: Settings): boolean {
  return existsSync("/run/systemd/system") && isMachineDaemon(settings);
}

/**
 * Starts it and waits until it answers; running already is success.
 * @throws Unavailable with what it said last.
 */
export async function startDaemon(settings: Settings, clock: Clock, signal: AbortSignal): Promise<void> {
  if (await answers(settings, clock)) return;
  let child: ChildProcess | undefined;
  if (underSystemd(settings)) await startUnit(settings);
  else child = startInBackground(settings);
  const deadline = clock.monotonicMs() + startTimeoutMs;
  while (clock.monotonicMs() < deadline) {
    if (await answers(settings, clock)) return;
    // Another start of the same moment may have won: then that one answers soon.
    if (child && child.exitCode !== null && child.exitCode !== exitAnotherRuns) {
      if (await answers(settings, clock)) return;
      break;
    }
    await clock.sleep(pollMs, signal);
  }
  throw new StrataError("Unavailable", `the daemon does not start: ${lastWords(settings)}`);
}

function startInBackground(settings: Settings): ChildProcess {
  mkdirSync(settings.stateDir, { recursive: true, mode: 0o711 });
  if (existsSync(settings.logFile) && statSync(settings.logFile).size > maxLogBytes) {
    renameSync(settings.logFile, `${settings.logFile}.1`);
  }
  const log = openSync(settings.logFile, "a", 0o600);
  const { command, args } = daemonCommand();
  const child = spawn(command, args, {
    cwd: "/",
    detached: true,
    stdio: ["ignore", log, log],
    env: { ...process.env, ...daemonEnvironment(settings) },
  });
  closeSync(log);
  child.unref();
  return child;
}

/** The message of the log's last error, for people. */
function lastWords(settings: Settings): string {
  const where = underSystemd(settings) ? `journalctl -u ${unitName}` : settings.logFile;
  for (const line of logTail(settings).trim().split("\n").reverse()) {
    if (!line.startsWith("{")) continue;
    try {
      const { level = 0, msg } = JSON.parse(line) as { level?: number; msg?: string };
      if (msg && level >= 50) return `${msg} (log: ${where})`;
    } catch {} // cut off
  }
  return `see ${where}`;
}

function logTail(settings: Settings): string {
  if (underSystemd(settings)) {
    const args = ["--unit", unitName, "--output=cat", "--lines=20", "--no-pager"];
    return spawnSync("journalctl", args, { encoding: "utf8" }).stdout ?? "";
  }
  return existsSync(settings.logFile) ? readFileSync(settings.logFile, "utf8").slice(-8192) : "";
}

/** Asks it to end and waits until it has; instances keep running. @returns false when it did not run. */
export async function stopDaemon(settings: Settings, clock: Clock): Promise<boolean> {
  if (underSystemd(settings) && existsSync(unitFile)) {
    const active = findDaemon(settings) !== undefined;
    await run("systemctl", ["stop", unitName], { timeoutMs: stopTimeoutMs * 2 });
    return active;
  }
  const daemon = findDaemon(settings);
  if (!daemon) return false;
  signalDaemon(daemon.pid, "SIGTERM");
  const deadline = clock.monotonicMs() + stopTimeoutMs;
  while (findDaemon(settings)?.pid === daemon.pid && !isZombie(daemon.pid)) {
    if (clock.monotonicMs() > deadline) {
      signalDaemon(daemon.pid, "SIGKILL");
      break;
    }
    await clock.sleep(pollMs);
  }
  return true;
}

function signalDaemon(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ESRCH") return; // ended by itself meanwhile
    throw new StrataError("Forbidden", "stopping the daemon needs root: run it with sudo", { cause });
  }
}

/** Ended, but its parent has not looked yet. */
function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8").slice(-400).replace(/^.*\)/, ""));
  } catch {
    return true;
  }
}

async function startUnit(settings: Settings): Promise<void> {
  const text = unitText(settings);
  const { writeFile } = await import("node:fs/promises");
  if (!existsSync(unitFile) || readFileSync(unitFile, "utf8") !== text) {
    await writeFile(unitFile, text, { mode: 0o644 });
    await run("systemctl", ["daemon-reload"]);
  }
  await run("systemctl", ["enable", "--now", unitName], { timeoutMs: startTimeoutMs });
}

/**
 * KillMode=process: systemd ends the daemon alone and leaves the guests in its control group running; Delegate=yes: that
 * group's children are the daemon's business.
 */
export function unitText(settings: Settings): string {
  const { command, args } = daemonCommand();
  const environment = Object.entries(daemonEnvironment(settings))
    .map(([name, value]) => `Environment=${quoted(`${name}=${value}`)}`)
    .join("\n");
  return `[Unit]
Description=Strata, a cloud of your own
After=network-online.target nss-lookup.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
${environment}
ExecStart=${[command, ...args].map((word) => quoted(word).replaceAll("$", "$$$$")).join(" ")}
KillMode=process
Delegate=yes
Restart=always
RestartSec=1
OOMScoreAdjust=-800
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
`;
}

/** As systemd.syntax(7) wants it, specifiers taken literally. */
function quoted(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&").replaceAll("%", "%%")}"`;
}

/** Takes the unit away; absent is success. */
export async function removeUnit(): Promise<void> {
  if (!existsSync(unitFile)) return;
  await run("systemctl", ["disable", "--now", unitName], { timeoutMs: stopTimeoutMs * 2 });
  rmSync(unitFile, { force: true });
  await run("systemctl", ["daemon-reload"]);
}
