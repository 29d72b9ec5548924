/** Commands in a running container, through the Engine: in its namespaces, cgroup and confinement, as root. */
import { readFile } from "node:fs/promises";
import { type Duplex, PassThrough, Readable, type Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Exec, ExecRequest, ExecSession } from "../driver.ts";
import { demultiplex } from "./demultiplex.ts";
import type { DockerAccess } from "./docker-access.ts";
import { execCommand } from "./gate.ts";

const namePattern = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** From the end of a command's output to the Engine knowing its status; from its begin to its process id. */
const settleTimeoutMs = 5_000;
const settleRetryMs = 10;
const killed = 137;

export function dockerExec(access: DockerAccess): Exec<JsonObject> {
  return {
    async run(handle, request, signal) {
      signal.throwIfAborted();
      checkRequest(request);
      const container = await access.runningContainer(handle, signal);
      const id = await createExec(access, container.Id, request, signal);
      const connection = await access.engine.ask(
        "run a command",
        // Not with the signal: it ends the command, and the connection ends by itself then.
        (docker) => docker.getExec(id).start({ hijack: true, stdin: true, Tty: request.tty !== undefined }),
      );
      return new Session(access, {
        id,
        container: container.Id,
        connection,
        tty: request.tty !== undefined,
      }).begin(signal);
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

async function createExec(
  { engine }: DockerAccess,
  container: string,
  { command, env, tty }: ExecRequest,
  signal: AbortSignal,
): Promise<string> {
  const variables = { ...(tty === undefined ? {} : { TERM: "xterm-256color" }), ...env };
  const exec = await engine.ask(
    "run a command",
    (docker, abortSignal) =>
      docker.getContainer(container).exec({
        AttachStdin: true,
        AttachStdout: true,
        AttachStderr: true,
        Tty: tty !== undefined,
        User: "0",
        Env: Object.entries(variables).map(([name, value]) => `${name}=${value}`),
        Cmd: execCommand(command, tty),
        abortSignal,
      }),
    { signal },
  );
  return exec.id;
}

interface SessionParts {
  id: string;
  container: string;
  connection: Duplex;
  tty: boolean;
}

class Session {
  readonly #access: DockerAccess;
  readonly #parts: SessionParts;
  #ended = false;

  constructor(access: DockerAccess, parts: SessionParts) {
    this.#access = access;
    this.#parts = parts;
  }

  begin(signal: AbortSignal): ExecSession {
    const { connection, tty } = this.#parts;
    const stdout = new PassThrough();
    const stderr = tty ? Readable.from([]) : new PassThrough();
    connection.on("error", () => {}); // the command may end without reading its input
    const reading = this.#read(stdout, stderr);
    const kill = () => void this.#kill();
    signal.addEventListener("abort", kill, { once: true });
    const exit = reading.then(async () => {
      this.#ended = true;
      signal.removeEventListener("abort", kill);
      return await this.#status();
    });
    exit.catch(() => {});
    if (signal.aborted) kill();
    return {
      stdin: connection as Writable,
      stdout,
      stderr,
      exit,
      resize: (columns, rows) => void this.#resize(columns, rows),
    };
  }

  /** Until the connection ends. Reads no faster than its readers do. */
  async #read(stdout: PassThrough, stderr: Readable): Promise<void> {
    const { connection, tty } = this.#parts;
    const write = async (target: PassThrough, bytes: Uint8Array) => {
      if (!target.write(bytes)) await drained(target);
    };
    try {
      if (tty) for await (const bytes of connection) await write(stdout, bytes);
      else {
        for await (const { stream, bytes } of demultiplex(connection)) {
          await write(stream === "stdout" ? stdout : (stderr as PassThrough), bytes);
        }
      }
    } catch {
      // The connection broke; the command's status tells the rest.
    } finally {
      stdout.end();
      if (stderr instanceof PassThrough) stderr.end();
      connection.destroy();
    }
  }

  async #status(): Promise<number> {
    const { clock } = this.#access;
    const deadline = clock.monotonicMs() + settleTimeoutMs;
    for (;;) {
      const found = await this.#inspect();
      if (found !== undefined && !found.Running && found.ExitCode !== null) return found.ExitCode;
      // It is gone with its container.
      if (found === undefined) return killed;
      if (clock.monotonicMs() > deadline) {
        throw new StrataError("Timeout", "the Docker Engine does not tell how the command ended");
      }
      await clock.sleep(settleRetryMs);
    }
  }

  /** The Engine cannot end a command, so its processes are killed from outside. */
  async #kill(): Promise<void> {
    const { clock } = this.#access;
    const deadline = clock.monotonicMs() + settleTimeoutMs;
    while (!this.#ended && clock.monotonicMs() < deadline) {
      const pid = (await this.#inspect().catch(() => undefined))?.Pid ?? 0;
      if (pid > 1 && (await killTree(pid, this.#parts.container))) return;
      await clock.sleep(settleRetryMs);
    }
    this.#parts.connection.destroy();
  }

  #inspect(): Promise<{ Running: boolean; ExitCode: number | null; Pid: number } | undefined> {
    return this.#access.engine.call(
      "look at a command",
      (docker, abortSignal) => docker.getExec(this.#parts.id).inspect({ abortSignal }),
      { accept: [404] },
    );
  }

  async #resize(columns: number, rows: number): Promise<void> {
    if (!this.#parts.tty || this.#ended) return;
    await this.#access.engine
      .call("size a terminal", (docker) => docker.getExec(this.#parts.id).resize({ w: columns, h: rows }))
      .catch(() => {}); // it has just ended
  }
}

async function drained(target: PassThrough): Promise<void> {
  const closed = finished(target).catch(() => {});
  await Promise.race([new Promise((resolve) => target.once("drain", resolve)), closed]);
}

/** Kills a process and its descendants. False when it is not there, or not of that container. */
async function killTree(pid: number, container: string): Promise<boolean> {
  const groups = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  if (!groups.includes(container)) return false;
  for (const child of await childrenOf(pid)) await killTree(child, container);
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
  return true;
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  return text.trim() === "" ? [] : text.trim().split(" ").map(Number);
}
