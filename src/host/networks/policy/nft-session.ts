/**
 * One nft process in a network's namespace that carries out transactions, started when there is something to do and ended
 * when there was nothing for a while. A transaction takes a few milliseconds; starting nft for each would take longer, and
 * the more the larger this process is.
 *
 * A transaction is a file that the process is told to include: nft makes one of it, whatever its length. After that comes
 * a line which is no command. nft answers each line before it reads the next, so the complaint about that line says that
 * all complaints about the transaction have been made.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../../../core/clock.ts";
import { StrataError } from "../../../core/errors.ts";
import { enterNetns } from "./enter-netns.ts";
import { type Marks, withMarks } from "./foreign-changes.ts";

export interface NftSessionOptions {
  /** For messages: whose rules these are. */
  owner: string;
  /** Left out: the host's own namespace. */
  netns?: string;
  /** Where the next transaction is written. The session's own. */
  file: string;
  /** Set where somebody listens for changes by others. */
  marks?: Marks;
  clock: Clock;
  idleMs: number;
  /** Default 20,000. */
  timeoutMs?: number;
}

interface Running {
  child: ChildProcess;
  complaints: string;
  ended: boolean;
  /** To be called when something came from the process, or it ended. */
  waiting: (() => void)[];
}

export class NftSession {
  readonly #options: NftSessionOptions;
  #running: Running | undefined;
  #cancelIdle: (() => void) | undefined;
  #count = 0;

  constructor(options: NftSessionOptions) {
    this.#options = options;
  }

  /**
   * Calls must not overlap. When it resolves, the kernel follows the new rules.
   * @throws Internal with nft's words as detail when it was refused: then nothing has changed. Unavailable or Timeout when
   * the process did not answer: then it may have been carried out.
   */
  async transact(text: string): Promise<void> {
    const { marks } = this.#options;
    const complaint = await this.#say(marks ? withMarks(text, marks) : text);
    if (complaint === "") return;
    throw new StrataError(
      "Internal",
      `the kernel refused a change of the packet rules of ${this.#options.owner}; nothing was changed`,
      { detail: complaint.slice(0, 2000) },
    );
  }

  /** The last transaction: the table of marks goes with it. */
  async leave(text: string): Promise<void> {
    const { marks, owner } = this.#options;
    const complaint = await this.#say(
      marks ? `${text}table ${marks.table} {}\ndelete table ${marks.table}\n` : text,
    );
    if (complaint === "") return;
    throw new StrataError("Internal", `the kernel refused to take away the packet rules of ${owner}`, {
      detail: complaint.slice(0, 2000),
    });
  }

  /** Whether a command succeeds; for questions such as `list table …`. */
  async succeeds(command: string): Promise<boolean> {
    return (await this.#say(`${command}\n`)) === "";
  }

  /** Resolves when the process is gone, so that the namespace can go. */
  async end(): Promise<void> {
    this.#cancelIdle?.();
    const running = this.#running;
    this.#running = undefined;
    running?.child.ref(); // nothing else may be left to wait for
    running?.child.kill("SIGKILL");
    while (running && !running.ended) await nextWake(running);
    await rm(this.#options.file, { force: true });
  }

  /** Ends the process without waiting. */
  kill(): void {
    this.#cancelIdle?.();
    this.#running?.child.kill("SIGKILL");
    this.#running = undefined;
  }

  async #say(text: string): Promise<string> {
    const { file, owner, clock, idleMs, timeoutMs = 20_000 } = this.#options;
    this.#cancelIdle?.();
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeFile(file, text, { mode: 0o600 });
    const running = this.#start();
    const end = `strata-end-${++this.#count}`;
    // The line is quoted with the place of the error below it.
    const answer = new RegExp(`(?:^|\\n)[^\\n]*Error: [^\\n]*\\n${end}\\n *\\^+\\n`);
    running.complaints = "";
    running.child.stdin?.write(`include "${file}"\n${end}\n`);
    let late = false;
    const cancel = clock.after(timeoutMs, () => {
      late = true;
      wake(running);
    });
    try {
      for (;;) {
        const found = answer.exec(running.complaints);
        if (found) return running.complaints.slice(0, found.index);
        if (late || running.ended) {
          const detail = running.complaints.slice(-2000);
          this.kill();
          throw late
            ? new StrataError("Timeout", `nft did not change the rules of ${owner} within ${timeoutMs} ms`, {
                detail,
              })
            : new StrataError("Unavailable", `nft ended while it changed the rules of ${owner}`, { detail });
        }
        await nextWake(running);
      }
    } finally {
      cancel();
      this.#cancelIdle = clock.after(idleMs, () => this.kill());
    }
  }

  #start(): Running {
    if (this.#running && !this.#running.ended) return this.#running;
    const { command, args } = enterNetns(this.#options.netns, ["nft", "-i"]);
    const child = spawn(command, args, {
      // nft keeps a history of its commands in the home directory.
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8", HOME: "/nonexistent" },
      stdio: ["pipe", "ignore", "pipe"],
    });
    const running: Running = { child, complaints: "", ended: false, waiting: [] };
    const ended = () => {
      running.ended = true;
      wake(running);
    };
    child.on("error", ended).on("close", ended);
    child.stdin.on("error", () => {});
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      running.complaints += text;
      wake(running);
    });
    this.#running = running;
    return running;
  }
}

function nextWake(running: Running): Promise<void> {
  return new Promise((resolve) => running.waiting.push(resolve));
}

function wake(running: Running): void {
  for (const resolve of running.waiting.splice(0)) resolve();
}
