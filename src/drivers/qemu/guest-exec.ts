/**
 * Commands in the guest, with live streams. The guest agent can start a command, but collects its output until the end
 * and takes its input beforehand. So it starts a small script that connects the command to virtio-serial ports: three a
 * command, plugged into the machine for as long as the command runs, each behind a socket of ours. Data flows as it
 * comes, in both directions, with back pressure, and a port is free again whatever a command has left behind.
 *
 * The script says on the ports themselves that the command begins and how it ended, marked by a random token, so nobody
 * polls the agent. Needed in the guest: the agent, the driver virtio_console, and what exec-scripts.ts names.
 */
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { Exec, ExecRequest, ExecSession } from "../driver.ts";
import { execSlots } from "./command-line.ts";
import { connectExecPorts, execPortName, plugExecPorts, unplugExecPorts } from "./exec-ports.ts";
import { killScript, plainScript, resizeScript, terminalScript } from "./exec-scripts.ts";
import { cannotBegin, PortSession } from "./exec-session.ts";
import { withAgent } from "./guest-agent.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { SlotPool } from "./slot-pool.ts";

export interface GuestExecOptions {
  clock: Clock;
  random: Random;
  logger: Logger;
  guestOf(handle: JsonObject): GuestLifecycle;
}

const agentTimeoutMs = 10_000;
/** From the agent's answer to the script's first word: the ports must appear in the guest. */
const beginTimeoutMs = 20_000;
/** From killing a command to its end. */
const killTimeoutMs = 5_000;
/** For the ports of a command that has just ended to be taken out. */
const slotTimeoutMs = 5_000;
const killedStatus = 128 + 9;
const standardEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
};
const terminalEnvironment = { TERM: "xterm-256color" };

export class GuestExec implements Exec<JsonObject> {
  readonly #options: GuestExecOptions;

  constructor(options: GuestExecOptions) {
    this.#options = options;
  }

  async run(handle: JsonObject, request: ExecRequest, signal: AbortSignal): Promise<ExecSession> {
    signal.throwIfAborted();
    const guest = this.#options.guestOf(handle);
    if ((await guest.look()).state !== "running") {
      throw new StrataError("Unavailable", "the guest is not running, so no command can run in it");
    }
    const slot = await poolOf(guest.files.directory).take(this.#options.clock);
    try {
      const session = await this.#begin(guest, slot, request, signal);
      void session.exit.catch(() => {}).then(() => this.#release(guest, slot));
      return session;
    } catch (error) {
      await this.#release(guest, slot);
      signal.throwIfAborted();
      throw error;
    }
  }

  async #begin(
    guest: GuestLifecycle,
    slot: number,
    request: ExecRequest,
    signal: AbortSignal,
  ): Promise<PortSession> {
    const token = `strata-${Buffer.from(this.#options.random.bytes(16)).toString("hex")}`;
    const limits = { clock: this.#options.clock, signal };
    await plugExecPorts(guest, slot, limits);
    const sockets = await connectExecPorts(guest.files.runtimeDirectory, slot, limits);
    const session = new PortSession(sockets, token, (terminal, columns, rows) =>
      this.#resize(guest, terminal, columns, rows),
    );
    const onAbort = () => session.finish(killedStatus);
    const cancel = this.#options.clock.after(agentTimeoutMs + beginTimeoutMs, () =>
      session.finish(cannotBegin),
    );
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const { tty, env, command } = request;
      const names = [token, execPortName(slot)];
      if (tty) {
        const args = [...names, String(tty.columns), String(tty.rows), ...command];
        await this.#startInGuest(guest, terminalScript, args, { ...terminalEnvironment, ...env }, signal);
      } else await this.#startInGuest(guest, plainScript, [...names, ...command], env, signal);
      const pid = await session.began;
      signal.throwIfAborted();
      this.#killOnAbort(guest, session, pid, signal);
      return session;
    } catch (error) {
      session.finish(killedStatus);
      throw error;
    } finally {
      cancel();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #resize(guest: GuestLifecycle, terminal: string, columns: number, rows: number): Promise<void> {
    const { signal } = new AbortController();
    try {
      const args = [terminal, String(columns), String(rows)];
      await this.#startInGuest(guest, resizeScript, args, {}, signal);
    } catch (error) {
      this.#options.logger.debug({ error: describeError(error) }, "a terminal in a guest was not resized");
    }
  }

  #killOnAbort(guest: GuestLifecycle, session: PortSession, pid: number, signal: AbortSignal): void {
    const onAbort = () => {
      // The script says how the command ended; when it cannot, the caller is not kept waiting.
      const cancel = this.#options.clock.after(killTimeoutMs, () => session.finish(killedStatus));
      void session.exit.catch(() => {}).then(cancel);
      const { signal: unlimited } = new AbortController();
      this.#startInGuest(guest, killScript, [String(pid)], {}, unlimited).catch((error) => {
        this.#options.logger.debug({ error: describeError(error) }, "a command in a guest was not killed");
        session.finish(killedStatus);
      });
    };
    signal.addEventListener("abort", onAbort, { once: true });
    void session.exit.catch(() => {}).then(() => signal.removeEventListener("abort", onAbort));
  }

  /** Starts a shell script as root in the guest and does not wait for its end. */
  async #startInGuest(
    guest: GuestLifecycle,
    script: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, random } = this.#options;
    const path = guest.files.socket("agent");
    await withAgent(path, { clock, random, timeoutMs: agentTimeoutMs }, signal, (agent) =>
      agent.execute("guest-exec", {
        path: "/bin/sh",
        arg: ["-c", script, "strata-exec", ...args],
        env: Object.entries({ ...standardEnvironment, ...env }).map(([key, value]) => `${key}=${value}`),
      }),
    );
  }

  /** The slot is free once its ports are out of the machine, or the machine is gone. */
  async #release(guest: GuestLifecycle, slot: number): Promise<void> {
    try {
      await unplugExecPorts(guest, slot);
    } catch (error) {
      this.#options.logger.debug({ error: describeError(error) }, "exec ports not unplugged");
    } finally {
      poolOf(guest.files.directory).give(slot);
    }
  }
}

/** Of the process, like the guests' locks. A guest's entry goes with its last command. */
const pools = new Map<string, { pool: SlotPool; users: number }>();

function poolOf(directory: string): { take(clock: Clock): Promise<number>; give(slot: number): void } {
  return {
    async take(clock) {
      const entry = pools.get(directory) ?? { pool: new SlotPool(execSlots), users: 0 };
      pools.set(directory, entry);
      entry.users++;
      const slot = await entry.pool.take(clock, slotTimeoutMs);
      if (slot !== undefined) return slot;
      entry.users--;
      throw new StrataError(
        "Unavailable",
        `${execSlots} commands are running in this guest already; try again when one of them has ended`,
      );
    },
    give(slot) {
      const entry = pools.get(directory);
      if (entry === undefined) return;
      entry.pool.give(slot);
      entry.users--;
      if (entry.users === 0) pools.delete(directory);
    },
  };
}
