/**
 * Hears from the kernel when somebody else changes rules: one `nft monitor` in each network's namespace and one on the host.
 *
 * It is a process of its own, because nft can either listen or act, and the kernel tells only listeners in the same
 * namespace. It is small, and the only one that stays.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Clock } from "../../../core/clock.ts";
import { enterNetns } from "./enter-netns.ts";
import { ForeignChanges, type ForeignChangesOptions } from "./foreign-changes.ts";

export interface NftMonitorOptions extends ForeignChangesOptions {
  /** Left out: the host's own namespace. */
  netns?: string;
  clock: Clock;
  /** The process ended by itself and is started again: changes may have been missed. */
  onGap: () => void;
}

const restartDelayMs = 1_000;

export class NftMonitor {
  readonly #options: NftMonitorOptions;
  #child: ChildProcess | undefined;
  #closed = false;
  #cancelRestart: (() => void) | undefined;
  #wakeEnded: () => void = () => {};

  constructor(options: NftMonitorOptions) {
    this.#options = options;
    this.#start();
  }

  /** Resolves when the process is gone. */
  async end(): Promise<void> {
    const gone =
      this.#child === undefined ? undefined : new Promise<void>((resolve) => (this.#wakeEnded = resolve));
    this.#child?.ref(); // nothing else may be left to wait for
    this.kill();
    await gone;
  }

  /** Ends the process without waiting. */
  kill(): void {
    this.#closed = true;
    this.#cancelRestart?.();
    this.#child?.kill("SIGKILL");
  }

  #start(): void {
    const { netns, clock, onGap } = this.#options;
    const { command, args } = enterNetns(netns, ["nft", "monitor", "rules"]);
    const child = spawn(command, args, {
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    const reader = new ForeignChanges(this.#options);
    child.stdout.setEncoding("utf8").on("data", (text: string) => reader.read(text));
    let ended = false;
    const onEnd = () => {
      if (ended) return;
      ended = true;
      this.#child = undefined;
      this.#wakeEnded();
      if (this.#closed) return;
      this.#cancelRestart = clock.after(restartDelayMs, () => {
        this.#start();
        onGap();
      });
    };
    child.on("error", onEnd).on("close", onEnd);
  }
}
