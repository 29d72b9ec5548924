/**
 * One run of restic: argument vector, an environment of a few variables, low priority in a control group of its own, and
 * nothing of it outlives this process. The key and the S3 secret come through the environment, which root alone can read;
 * neither is an argument or in a message. (Node's pipes are sockets, which restic cannot open as a password file.)
 */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { type Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StrataError } from "../../core/errors.ts";
import type { Cgroups } from "../cgroups.ts";
import type { RepositoryAccess, RepositoryPlace } from "./backups.ts";

export interface ResticRun {
  repository: RepositoryAccess;
  /** Its way to S3. */
  proxy?: string | undefined;
  args: readonly string[];
  signal: AbortSignal;
  /** Kills it after this long. */
  timeoutMs: number;
  /** Its standard input: a file's descriptor, or bytes. Should these fail, it is killed before it sees their end. */
  stdin?: number | AsyncIterable<Uint8Array>;
  onStdoutLine?: (line: string) => void;
  /** Takes all of standard output instead. */
  onStdout?: (bytes: Readable) => Promise<void>;
}

export interface ResticEnd {
  status: number;
  stdout: string;
  stderr: string;
}

export interface ResticHost {
  cgroups: Pick<Cgroups, "ensure" | "procsFiles">;
  group: string;
  cacheDir: string;
}

const path = "/usr/sbin:/usr/bin:/sbin:/bin";
const maxTextChars = 1024 * 1024;
/** Guests come first: it may use one processor, and little of that while others want it. */
const limits = { cpus: 1, memoryMib: 4096, processes: 256 };

/** Ends when its parent has died before the death signal was set; then enters the groups and becomes the program. */
const enter =
  '[ "$PPID" = "$1" ] || exit 1; shift; while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"';

/** @throws Unavailable without the program; Timeout; the signal's reason; what `onStdout` or `stdin` throws. */
export async function runRestic(host: ResticHost, request: ResticRun): Promise<ResticEnd> {
  const { repository, args, signal, timeoutMs } = request;
  signal.throwIfAborted();
  await host.cgroups.ensure(host.group, limits);
  const program = ["restic", "--cache-dir", host.cacheDir, "--cleanup-cache", ...args];
  const quiet = ["-n", "10", "ionice", "-c", "3", "setpriv", "--pdeathsig", "KILL"];
  const groups = host.cgroups.procsFiles(host.group);
  const argv = [...quiet, "sh", "-c", enter, "sh", `${process.pid}`, ...groups, "--", ...program];
  const { stdin = "ignore" } = request;
  const stdio: StdioOptions = [typeof stdin === "object" ? "pipe" : stdin, "pipe", "pipe"];
  const child = spawn("nice", argv, { env: environmentOf(repository, request.proxy), stdio, cwd: "/" });
  const timeout = AbortSignal.timeout(timeoutMs);
  const stop = AbortSignal.any([signal, timeout]);
  const kill = () => child.kill("SIGKILL");
  stop.addEventListener("abort", kill, { once: true });
  try {
    const end = await collect(child, request);
    signal.throwIfAborted();
    if (timeout.aborted) {
      const minutes = Math.max(1, Math.round(timeoutMs / 60_000));
      throw new StrataError("Timeout", `the repository kept restic waiting for more than ${minutes} minutes`);
    }
    return end;
  } finally {
    stop.removeEventListener("abort", kill);
    kill();
  }
}

export function resticAddress(place: RepositoryPlace): string {
  if (place.type === "directory") return place.path;
  const prefix = place.prefix === undefined ? "" : `/${place.prefix}`;
  return `s3:${place.endpoint.replace(/\/+$/, "")}/${place.bucket}${prefix}`;
}

function environmentOf({ place, key }: RepositoryAccess, proxy: string | undefined): Record<string, string> {
  return {
    PATH: path,
    LANG: "C.UTF-8",
    HOME: "/nonexistent",
    GOMAXPROCS: "2",
    RESTIC_REPOSITORY: resticAddress(place),
    RESTIC_PASSWORD: key,
    RESTIC_PROGRESS_FPS: "1",
    ...(place.type === "s3"
      ? {
          AWS_ACCESS_KEY_ID: place.accessKeyId,
          AWS_SECRET_ACCESS_KEY: place.secretAccessKey,
          ...(proxy === undefined ? {} : { HTTP_PROXY: proxy, HTTPS_PROXY: proxy }),
          ...(place.region === undefined ? {} : { AWS_DEFAULT_REGION: place.region }),
        }
      : {}),
  };
}

async function collect(child: ChildProcess, request: ResticRun): Promise<ResticEnd> {
  let stdout = "";
  let stderr = "";
  let partial = "";
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (cause) => {
      reject(new StrataError("Unavailable", "cannot run nice (package coreutils)", { cause }));
    });
    child.once("close", (code) => resolve(code ?? 128));
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-64 * 1024);
  });
  const fed = typeof request.stdin === "object" ? feed(child, request.stdin) : Promise.resolve();
  fed.catch(() => {});
  const output = child.stdout as Readable;
  let taken: Promise<void> = Promise.resolve();
  if (request.onStdout) taken = request.onStdout(output);
  else {
    output.setEncoding("utf8").on("data", (text: string) => {
      if (!request.onStdoutLine) {
        stdout = (stdout + text).slice(-maxTextChars);
        return;
      }
      const lines = (partial + text).split("\n");
      partial = (lines.pop() ?? "").slice(-maxTextChars);
      for (const line of lines) request.onStdoutLine(line);
    });
  }
  taken.catch(() => child.kill("SIGKILL"));
  const status = await ended;
  await taken;
  await fed;
  if (partial !== "") request.onStdoutLine?.(partial);
  if (status === 127 || /exec: restic: not found/.test(stderr)) {
    throw new StrataError(
      "Unavailable",
      "the program restic is not installed; `strata doctor` says what to do",
    );
  }
  return { status, stdout, stderr };
}

/** Throws what the bytes throw. That the program has ended before them is told by its status. */
async function feed(child: ChildProcess, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  const stdin = child.stdin as Writable;
  stdin.on("error", () => {});
  let failure: { error: unknown } | undefined;
  async function* watched() {
    try {
      yield* bytes;
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  const sink = new Writable({
    write: (chunk, _encoding, done) => void stdin.write(chunk, done),
    final: (done) => void stdin.end(() => done()),
    // Killed while its input is still open: an end would make it save what has come so far.
    destroy(error, done) {
      if (error) child.kill("SIGKILL");
      done(null);
    },
  });
  child.once("close", () => sink.destroy());
  await pipeline(watched, sink).catch(() => {});
  if (failure) throw failure.error;
}
