/** A command line with nothing behind it but a TestClient, for tests. */
import { PassThrough, Writable } from "node:stream";
import { systemClock } from "../core/clock.ts";
import { seededRandom } from "../core/random.ts";
import { runCli } from "./cli.ts";
import type { CliContext, Machine } from "./command.ts";
import { TestClient } from "./test-client.ts";

class Collector extends Writable {
  text = "";
  isTTY = false;
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

export interface RunOutcome {
  status: number;
  out: string;
  err: string;
}

export class TestTerminal {
  readonly client = new TestClient();
  /** Is standard output a terminal? */
  isTTY = false;
  env: Record<string, string> = {};
  cwd = "/";
  /** Programs that were run with the terminal. */
  readonly foreground: string[][] = [];
  #interrupt: () => void = () => {};

  /** Presses Ctrl-C. */
  interrupt(): void {
    this.#interrupt();
  }

  async run(...argv: string[]): Promise<RunOutcome> {
    const stdout = new Collector();
    const stderr = new Collector();
    stdout.isTTY = this.isTTY;
    const machine = {
      version: "0.0.0",
      ensureDaemon: async () => {},
      foreground: async (command: string, args: readonly string[]) => {
        this.foreground.push([command, ...args]);
        return 0;
      },
    } as unknown as Machine;
    const context: CliContext = {
      streams: { stdin: new PassThrough(), stdout, stderr },
      env: this.env,
      cwd: this.cwd,
      clock: systemClock,
      random: seededRandom(7),
      machine,
      defaultSocket: "/run/none.sock",
      connect: async () => this.client.asClient(),
      onInterrupt: (callback) => {
        this.#interrupt = callback;
        return () => {};
      },
      exitNow: () => {},
    };
    const status = await runCli(argv, context);
    return { status, out: stdout.text, err: stderr.text };
  }
}
