import { spawn } from "node:child_process";
import { PassThrough, type Readable } from "node:stream";
import type { StrataError } from "../core/errors.ts";

export interface OutputOptions {
  cwd?: string;
  signal?: AbortSignal;
  /** What the reader gets when the program fails. */
  explain(status: number, complaint: string): StrataError;
}

const maxComplaint = 2_000;

/**
 * Calls `use` with what a program writes, as fast as it is read. It is complete when `use` has read it to its end, and fails (the
 * stream and the call) when the program does: what merely stopped is never taken for all of it. Nothing of the program goes on
 * after the call.
 */
export async function withOutput<T>(
  command: string,
  args: readonly string[],
  { cwd, signal, explain }: OutputOptions,
  use: (output: Readable) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const child = spawn(command, args, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-maxComplaint);
  });
  const ended = new Promise<number>((resolve) => {
    child.once("error", (error) => {
      complaint += error.message;
      resolve(128);
    });
    child.once("close", (code) => resolve(code ?? 128));
  });
  const output = new PassThrough();
  child.stdout.pipe(output, { end: false });
  void ended.then((status) => {
    if (status === 0) output.end();
    else output.destroy(signal?.aborted ? (signal.reason as Error) : explain(status, complaint));
  });
  const stop = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", stop);
  try {
    return await use(output);
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
    output.destroy();
    await ended;
  }
}
