/**
 * Running the host's own tools: argument vectors only, no shell, a time limit and an output limit on each.
 */
import { spawn } from "node:child_process";
import { StrataError } from "../core/errors.ts";

export interface RunOptions {
  /** Text for standard input. */
  input?: string | Uint8Array;
  /** Kills the process (SIGKILL) after this long. Default 60,000. */
  timeoutMs?: number;
  signal?: AbortSignal;
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** Exit statuses that are no error. Default [0]. */
  expected?: readonly number[];
  /** Called with each line of standard error, for progress. */
  onStderrLine?: (line: string) => void;
}

export interface RunResult {
  stdout: string;
  stderr: string;
  status: number;
}

const maxOutputBytes = 16 * 1024 * 1024;
const basePath = "/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Runs a program to its end. The environment is minimal: PATH, LANG and what `env` adds.
 * @throws Internal with the command's last output as detail; Unavailable when the program is missing; Timeout;
 * the signal's reason when aborted.
 */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 60_000, expected = [0], signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const child = spawn(command, args, {
      env: { PATH: basePath, LANG: "C.UTF-8", ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    let stdout = "";
    let stderr = "";
    let partial = "";
    let timedOut = false;
    const kill = () => child.kill("SIGKILL");
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, timeoutMs);
    signal?.addEventListener("abort", kill, { once: true });
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (stdout.length > maxOutputBytes) kill();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-64 * 1024);
      if (!options.onStderrLine) return;
      const lines = (partial + text).split(/\r?\n|\r/);
      partial = lines.pop() ?? "";
      for (const line of lines) options.onStderrLine(line);
    });
    child.stdin.on("error", () => {}); // the program may end without reading its input
    child.stdin.end(options.input);
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", kill);
    };
    child.on("error", (cause: NodeJS.ErrnoException) => {
      finish();
      const missing = cause.code === "ENOENT";
      reject(
        new StrataError(
          missing ? "Unavailable" : "Internal",
          missing
            ? `the program ${command} is not installed; \`strata doctor\` says which package has it`
            : `cannot run ${command}`,
          { cause },
        ),
      );
    });
    child.on("close", (code, signalName) => {
      finish();
      const status = code ?? 128;
      if (signal?.aborted) return reject(signal.reason);
      if (timedOut) {
        return reject(
          new StrataError("Timeout", `${command} did not finish within ${timeoutMs} ms`, {
            detail: stderr.slice(-2000),
          }),
        );
      }
      if (code !== null && expected.includes(code)) return resolve({ stdout, stderr, status });
      reject(
        new StrataError("Internal", `${command} failed with ${signalName ?? `status ${status}`}`, {
          detail: `${[command, ...args].join(" ").slice(0, 500)}: ${(stderr || stdout).slice(-2000)}`,
        }),
      );
    });
  });
}
