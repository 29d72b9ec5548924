/** `strata daemon …` */
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { OptionValues, Session } from "../cli/command.ts";
import type { Output } from "../cli/output.ts";
import { StrataError } from "../core/errors.ts";
import {
  answers,
  daemonCommand,
  daemonEnvironment,
  findDaemon,
  startDaemon,
  stopDaemon,
  underSystemd,
  unitName,
} from "./daemon-process.ts";
import { installPackages, requireRoot } from "./packages.ts";
import type { Settings } from "./settings.ts";

export interface DaemonCall {
  settings: Settings;
  session: Session;
  values: OptionValues;
  foreground(command: string, args: readonly string[]): Promise<number>;
}

const followMs = 250;
const tailBytes = 64 * 1024;

export const daemonCommands = {
  run: async ({ settings, foreground }: DaemonCall): Promise<Output> => {
    await prepare(settings);
    Object.assign(process.env, daemonEnvironment(settings));
    const { command, args } = daemonCommand();
    return { type: "done", status: await foreground(command, args) };
  },
  start: async ({ settings, session }: DaemonCall): Promise<Output> => {
    await prepare(settings);
    const running = await answers(settings, session.clock);
    if (!running) await startDaemon(settings, session.clock, session.signal);
    const text = `the daemon ${running ? "runs already" : "is started"} (${settings.socketPath})`;
    return { type: "message", text, json: status(settings, true) };
  },
  stop: async ({ settings, session }: DaemonCall): Promise<Output> => {
    const stopped = await stopDaemon(settings, session.clock);
    const text = stopped ? "the daemon is stopped; instances keep running" : "no daemon runs";
    return { type: "message", text, json: status(settings, false) };
  },
  restart: async (call: DaemonCall): Promise<Output> => {
    await daemonCommands.stop(call);
    return await daemonCommands.start(call);
  },
  status: async ({ settings, session }: DaemonCall): Promise<Output> => {
    const json = status(settings, await answers(settings, session.clock));
    const branches = Object.entries(json).map(([label, value]) => ({ label, value: String(value) }));
    session.printer.output({ type: "tree", branches, json });
    return { type: "done", status: json.running ? 0 : 3 };
  },
  logs: async ({ settings, session, values, foreground }: DaemonCall): Promise<Output> => {
    const follow = values.flag("follow");
    if (underSystemd(settings)) {
      const args = [
        "--unit",
        unitName,
        "--output",
        "cat",
        "--lines",
        "200",
        ...(follow ? ["--follow"] : ["--no-pager"]),
      ];
      return { type: "done", status: await foreground("journalctl", args) };
    }
    await showLog(settings.logFile, follow, session);
    return { type: "done" };
  },
};

async function prepare(settings: Settings): Promise<void> {
  if (settings.fake) return;
  requireRoot("running the daemon");
  await installPackages(settings);
}

function status(settings: Settings, running: boolean) {
  const daemon = findDaemon(settings);
  return {
    running,
    ...(running && daemon ? { pid: daemon.pid, residentMib: residentMib(daemon.pid) } : {}),
    socket: settings.socketPath,
    ...(running && daemon ? { https: `https://127.0.0.1:${daemon.httpsPort}` } : {}),
    certificate: join(settings.stateDir, "tls", "cert.pem"),
    state: settings.stateDir,
    images: settings.imageDir,
    namespace: settings.namespace,
    log: underSystemd(settings) ? `journalctl -u ${unitName}` : settings.logFile,
  };
}

function residentMib(pid: number): number {
  const [, kib = "0"] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Math.round(Number(kib) / 1024);
}

async function showLog(file: string, follow: boolean, session: Session): Promise<void> {
  if (!existsSync(file)) throw new StrataError("NotFound", `there is no log yet at ${file}`);
  let position = Math.max(0, statSync(file).size - tailBytes);
  let inLine = position > 0; // the first line may be cut off
  for (;;) {
    const { size } = statSync(file);
    if (size < position) position = 0; // a new file
    if (size > position) {
      for await (const chunk of createReadStream(file, { start: position, end: size - 1 })) {
        let data = chunk as Buffer;
        if (inLine) {
          data = data.subarray(data.indexOf(10) + 1);
          inLine = false;
        }
        session.streams.stdout.write(data);
      }
      position = size;
    }
    if (!follow) return;
    await session.clock.sleep(followMs, session.signal);
  }
}
