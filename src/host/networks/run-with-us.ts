import { type RunOptions, type RunResult, run } from "../run.ts";

/**
 * Like `run`, for programs that make something: the kernel kills them with this process. Otherwise one that was under
 * way when this process was killed could make it after the next one has taken everything away. Processes that the
 * program leaves behind on purpose are not affected.
 */
export async function runWithUs(
  command: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult> {
  return await run("setpriv", ["--pdeathsig", "KILL", "--", command, ...args], options);
}
