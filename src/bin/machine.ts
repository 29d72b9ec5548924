/** What the command line can do on this machine, beside the API. Each part is imported when it is used. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import type { Machine, OptionValues, Session } from "../cli/command.ts";
import { StrataError } from "../core/errors.ts";
import { run } from "../host/run.ts";
import { readSettings, type Settings } from "./settings.ts";

export interface MachineOptions {
  version: string;
  onForeground(running: boolean): void;
}

export function createMachine(options: MachineOptions): Machine {
  const foreground = (command: string, args: readonly string[]) => runForeground(command, args, options);
  return {
    version: options.version,
    foreground,
    ensureDaemon,
    makeSshKey,
    daemon: async (verb, session, values) => {
      const settings = settingsOf(session, values);
      const commands = await import("./daemon-commands.ts");
      return await commands.daemonCommands[verb]({ settings, session, values, foreground });
    },
    doctor: async (session, values) => {
      const { doctorCommand } = await import("./doctor-command.ts");
      return await doctorCommand(session, settingsOf(session, values));
    },
    uninstall: async (session, values) => {
      const { uninstall } = await import("./uninstall.ts");
      return await uninstall(session, settingsOf(session, values), values);
    },
    test: async (session, args) => {
      const { runTests } = await import("./test-run.ts");
      return await runTests(session, args);
    },
  };
}

function settingsOf(session: Session, values: OptionValues): Settings {
  return readSettings(session.env, (name) => values.text(name), values.flag("fake"));
}

async function ensureDaemon(session: Session): Promise<void> {
  const { answers, startDaemon } = await import("./daemon-process.ts");
  const settings = { ...readSettings(session.env), socketPath: session.target.socketPath };
  if (await answers(settings, session.clock)) return;
  const { installPackages, requireRoot } = await import("./packages.ts");
  if (!settings.fake) {
    requireRoot(`no daemon answers at ${settings.socketPath}, and starting one`);
    await installPackages(settings);
  }
  session.printer.note("starts the daemon");
  await startDaemon(settings, session.clock, session.signal);
}

async function makeSshKey(comment: string): Promise<{ publicKey: string; privateKey: string }> {
  const directory = await mkdtemp(join(tmpdir(), "strata-key-"));
  try {
    const file = join(directory, "key");
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file]);
    const publicKey = (await readFile(`${file}.pub`, "utf8")).trim();
    return { publicKey, privateKey: await readFile(file, "utf8") };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function runForeground(
  command: string,
  args: readonly string[],
  { onForeground }: MachineOptions,
): Promise<number> {
  return new Promise((resolve, reject) => {
    onForeground(true);
    const child = spawn(command, args, { stdio: "inherit" });
    child.on("error", (cause: NodeJS.ErrnoException) => {
      onForeground(false);
      const message =
        cause.code === "ENOENT"
          ? `the program ${command} is not installed; \`strata doctor\` says which package has it`
          : `cannot run ${command}`;
      reject(new StrataError("Unavailable", message, { cause }));
    });
    child.on("close", (code, signal) => {
      onForeground(false);
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0));
    });
  });
}
