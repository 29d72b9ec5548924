/** Wires the command line to this process: its streams, its signals, the HTTP client and the machine's functions. */
import { readFileSync } from "node:fs";
import { runCli } from "../cli/cli.ts";
import type { CliContext, Target } from "../cli/command.ts";
import { systemClock } from "../core/clock.ts";
import { ownFile } from "../core/own-files.ts";
import { systemRandom } from "../core/random.ts";
import { createMachine } from "./machine.ts";
import { readSettings } from "./settings.ts";

export async function main(): Promise<number> {
  const { version } = JSON.parse(readFileSync(ownFile("package.json"), "utf8")) as {
    version: string;
  };
  // A pipe that closes early (`strata list | head`) is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  let inForeground = false;
  const machine = createMachine({
    version,
    onForeground: (running) => {
      inForeground = running;
    },
  });
  const context: CliContext = {
    streams: process,
    env: process.env,
    cwd: process.cwd(),
    clock: systemClock,
    random: systemRandom,
    machine,
    // Asked for by the command, so that wrong settings are its error.
    get defaultSocket() {
      return readSettings(process.env).socketPath;
    },
    connect: connectTo,
    exitNow: (status) => process.exit(status),
    onInterrupt: (callback) => {
      // What runs in the foreground gets the same Ctrl-C from the terminal and decides for itself.
      const listener = () => (inForeground ? undefined : callback());
      process.on("SIGINT", listener);
      return () => process.off("SIGINT", listener);
    },
  };
  return await runCli(process.argv.slice(2), context);
}

async function connectTo(target: Target) {
  const { createHttpClient } = await import("../client/http-client.ts");
  if (target.url === undefined) return createHttpClient({ socketPath: target.socketPath });
  return createHttpClient({
    url: target.url,
    ...(target.token ? { token: target.token } : {}),
    ...(target.ca ? { ca: target.ca } : {}),
  });
}
