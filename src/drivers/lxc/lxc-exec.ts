/** Commands in a running container, through lxc-attach: it enters the guest's namespaces, cgroup and confinement. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { Readable, Writable } from "node:stream";
import { type IPty, spawn as spawnPty } from "@lydell/node-pty";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Exec, ExecRequest, ExecSession } from "../driver.ts";
import { commandFor, type LxcAccess } from "./lxc-access.ts";
import { type HostCommand, sealed } from "./sealed.ts";

const defaultEnv = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  USER: "root",
  LANG: "C.UTF-8",
};
/** Of nsenter and lxc-attach themselves. */
const hostEnv = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
const attachTimeoutMs = 5_000;
const attachRetryMs = 5;
const namePattern = /^[A-Za-z_][A-Za-z0-9_]*$/;

export function lxcExec(access: LxcAccess): Exec<JsonObject> {
  return {
    async run(handle, request, signal) {
      signal.throwIfAborted();
      checkRequest(request);
      const uid = await access.runningUid(handle);
      const env = { ...defaultEnv, ...(request.tty ? { TERM: "xterm-256color" } : {}), ...request.env };
      // As arguments: in the environment of programs that run as root on the host, LD_PRELOAD would be a way out.
      const variables = Object.entries(env).map(([name, value]) => `--set-var=${name}=${value}`);
      const command = await commandFor(access, "lxcAttach", uid, [
        "--clear-env",
        ...variables,
        "--",
        ...request.command,
      ]);
      signal.throwIfAborted();
      return request.tty
        ? runOnTerminal(command, request.tty, access.clock, signal)
        : await runOnPipes(command, signal);
    },
  };
}

function checkRequest(request: ExecRequest): void {
  const wrong = Object.keys(request.env).find((name) => !namePattern.test(name));
  if (wrong !== undefined) {
    throw new StrataError(
      "Invalid",
      `${JSON.stringify(wrong.slice(0, 80))} is no name for an environment variable`,
    );
  }
  if (request.command.length === 0) throw new StrataError("Invalid", "there is no command to run");
  if ([...request.command, ...Object.values(request.env)].some((text) => text.includes("\0"))) {
    throw new StrataError("Invalid", "a command and its environment cannot hold NUL characters");
  }
}

async function runOnPipes(command: HostCommand, signal: AbortSignal): Promise<ExecSession> {
  const { file, args } = sealed(command);
  const child = spawn(file, args, { env: hostEnv, cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.on("error", () => {}); // the command may end without reading its input
  await spawned(child);
  const exit = new Promise<number>((resolve) => {
    child.once("exit", (code, name) => resolve(code ?? (name === "SIGKILL" ? 137 : 143)));
  });
  const kill = () => killAttached(child.pid);
  signal.addEventListener("abort", kill, { once: true });
  void exit.then(() => signal.removeEventListener("abort", kill));
  if (signal.aborted) kill();
  return { stdin: child.stdin, stdout: child.stdout, stderr: child.stderr, exit, resize: () => {} };
}

function spawned(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (cause) => {
      reject(new StrataError("Unavailable", "cannot start a command in the container", { cause }));
    });
  });
}

function runOnTerminal(
  command: HostCommand,
  size: { columns: number; rows: number },
  clock: Clock,
  signal: AbortSignal,
): ExecSession {
  const { file, args } = sealed(command);
  const pty = spawnPty(file, args, {
    name: "xterm-256color",
    cols: size.columns,
    rows: size.rows,
    cwd: "/",
    env: { ...hostEnv },
    encoding: null,
  });
  let ended = false;
  const kill = () => {
    if (!ended) killAttached(pty.pid);
  };
  const stdout = readableOf(pty);
  const exit = new Promise<number>((resolve) => {
    pty.onExit(({ exitCode, signal: number }) => {
      ended = true;
      signal.removeEventListener("abort", kill);
      stdout.push(null);
      resolve(number ? 128 + number : exitCode);
    });
  });
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();
  // Bytes as they are; the declaration knows strings only.
  const input = pty as unknown as { write(data: Uint8Array): void };
  const attached = untilAttached(pty.pid, clock, () => ended);
  const stdin = new Writable({
    write(chunk: Buffer, _encoding, done) {
      void attached.then(() => {
        if (!ended) input.write(chunk);
        done();
      });
    },
  });
  const resize = (columns: number, rows: number) => {
    if (!ended) pty.resize(columns, rows);
  };
  return { stdin, stdout, stderr: Readable.from([]), exit, resize };
}

function readableOf(pty: IPty): Readable {
  const readable = new Readable({ read: () => pty.resume() });
  pty.onData((chunk: string | Buffer) => {
    if (!readable.push(chunk)) pty.pause();
  });
  return readable;
}

/** lxc-attach throws away what was typed before it prepared the terminal, which it does before it makes a child. */
async function untilAttached(pid: number, clock: Clock, hasEnded: () => boolean): Promise<void> {
  const deadline = clock.monotonicMs() + attachTimeoutMs;
  while (!hasEnded() && childrenOf(pid).length === 0 && clock.monotonicMs() < deadline) {
    await clock.sleep(attachRetryMs);
  }
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch {
    return []; // it has ended
  }
}

/** Kills lxc-attach and the command, which is its child in another pid namespace and would survive it. */
function killAttached(pid: number | undefined): void {
  if (pid === undefined) return;
  for (const victim of [...childrenOf(pid), pid]) {
    try {
      if (victim > 1) process.kill(victim, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}
