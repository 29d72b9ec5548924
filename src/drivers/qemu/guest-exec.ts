/**
 * Commands in the guest, with live streams. The guest agent can start a command, but collects its output until the end
 * and takes its input beforehand. So it starts a small script that connects the command to virtio-serial ports: three a
 * command, plugged into the machine for as long as the command runs, each behind a socket of ours. Data flows as it
 * comes, in both directions, with back pressure, and a port is free again whatever a command has left behind.
 *
 * The script says on the ports themselves that the command begins and how it ended, marked by a random token, so nobody
 * polls the agent. Needed in the guest: the agent, the virtio_console driver, sh, cat, sleep and setsid.
 */
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { Exec, ExecRequest, ExecSession } from "../driver.ts";
import { execSlots } from "./command-line.ts";
import { connectExecPorts, execPortName, plugExecPorts, unplugExecPorts } from "./exec-ports.ts";
import { PortSession } from "./exec-session.ts";
import { GuestAgent } from "./guest-agent.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";

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
const killedStatus = 128 + 9;
const standardEnvironment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
};

// Neither script holds data: token, port names and the command are positional arguments. The inner shell is the
// command's own process, so the id that it prints is the command's and the group's to kill.
const runScript = `
token=$1 name=$2; shift 2
port() {
  for each in /sys/class/virtio-ports/*; do
    [ "$(cat "$each/name" 2>/dev/null)" = "$name.$1" ] && echo "/dev/\${each##*/}" && return
  done
  return 1
}
tries=0
until in=$(port in) && out=$(port out) && err=$(port err) && [ -c "$in" ] && [ -c "$out" ] && [ -c "$err" ]; do
  tries=$((tries + 1)); [ "$tries" -lt 100 ] || exit 125
  sleep 0.1
done
exec 3<"$in" 4>"$out" 5>"$err" || exit 125
setsid sh -c 'echo "$1 $$"; shift; exec "$@"' sh "$token" "$@" <&3 >&4 2>&5 3<&- 4>&- 5>&- &
exec 3<&-
wait $!
status=$?
echo "$token" >&5
echo "$token $status" >&4`;
const killScript = `kill -s KILL -- "-$1"`;

/** Slots in use, by guest. Of the process, like the guests' locks. */
const usedSlots = new Map<string, Set<number>>();

export class GuestExec implements Exec<JsonObject> {
  readonly #options: GuestExecOptions;

  constructor(options: GuestExecOptions) {
    this.#options = options;
  }

  async run(handle: JsonObject, request: ExecRequest, signal: AbortSignal): Promise<ExecSession> {
    signal.throwIfAborted();
    if (request.tty) {
      throw new StrataError(
        "Unsupported",
        "commands in virtual machines have no terminal; run it without one",
      );
    }
    const guest = this.#options.guestOf(handle);
    if ((await guest.look()).state !== "running") {
      throw new StrataError("Unavailable", "the guest is not running, so no command can run in it");
    }
    const slot = takeSlot(guest.files.directory);
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
    await plugExecPorts(guest, slot, signal);
    const session = new PortSession(await connectExecPorts(guest.files.runtimeDirectory, slot), token);
    const gone = new StrataError(
      "Unavailable",
      "the guest did not begin the command; it needs sh, setsid and the driver virtio_console",
    );
    const onAbort = () => session.finish(killedStatus);
    const cancel = this.#options.clock.after(agentTimeoutMs + beginTimeoutMs, () => session.finish(gone));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const args = [token, execPortName(slot), ...request.command];
      await this.#startInGuest(guest, runScript, args, request.env, signal);
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
    const path = join(guest.files.runtimeDirectory, "agent.sock");
    const agent = await GuestAgent.connect(path, { clock, random, timeoutMs: agentTimeoutMs }, signal);
    try {
      await agent.execute("guest-exec", {
        path: "/bin/sh",
        arg: ["-c", script, "strata-exec", ...args],
        env: Object.entries({ ...standardEnvironment, ...env }).map(([key, value]) => `${key}=${value}`),
      });
    } finally {
      agent.close();
      await agent.closed;
    }
  }

  /** The slot is free once its ports are out of the machine, or the machine is gone. */
  async #release(guest: GuestLifecycle, slot: number): Promise<void> {
    try {
      await unplugExecPorts(guest, slot);
    } catch (error) {
      this.#options.logger.debug({ error: describeError(error) }, "exec ports not unplugged");
    } finally {
      freeSlot(guest.files.directory, slot);
    }
  }
}

function takeSlot(directory: string): number {
  const used = usedSlots.get(directory) ?? new Set<number>();
  usedSlots.set(directory, used);
  for (let slot = 0; slot < execSlots; slot++) {
    if (used.has(slot)) continue;
    used.add(slot);
    return slot;
  }
  throw new StrataError(
    "Unavailable",
    `${execSlots} commands are running in this guest already; try again when one of them has ended`,
  );
}

function freeSlot(directory: string, slot: number): void {
  const used = usedSlots.get(directory);
  used?.delete(slot);
  if (used?.size === 0) usedSlots.delete(directory);
}
