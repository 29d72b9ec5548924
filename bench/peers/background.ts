import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { systemClock } from "../../src/core/clock.ts";
import { StrataError } from "../../src/core/errors.ts";

/** A daemon of a peer, run for the measurement and ended by its own handle. */
export class Background {
  readonly #child: ChildProcess;

  constructor(command: string, args: readonly string[], logFile: string, env: Record<string, string> = {}) {
    const log = openSync(logFile, "a");
    this.#child = spawn(command, args, { stdio: ["ignore", log, log], env: { ...process.env, ...env } });
    closeSync(log);
  }

  /** Waits until `probe` succeeds. */
  async ready(probe: () => Promise<unknown>, limitMs: number): Promise<void> {
    const end = systemClock.monotonicMs() + limitMs;
    for (;;) {
      try {
        await probe();
        return;
      } catch (cause) {
        if (systemClock.monotonicMs() > end || this.#child.exitCode !== null) {
          throw new StrataError("Timeout", `${this.#child.spawnfile} did not become ready`, { cause });
        }
        await systemClock.sleep(100);
      }
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const cancel = systemClock.after(20_000, () => this.#child.kill("SIGKILL"));
    await exit;
    cancel();
  }
}
