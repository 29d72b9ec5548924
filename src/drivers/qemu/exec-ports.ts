/** Virtio-serial ports for commands: plugged in for one command, taken out after it. */
import type { Socket } from "node:net";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { isJsonObject, type JsonObject } from "../../core/json.ts";
import { type ExecStream, execChardev, execStreams } from "./command-line.ts";
import type { ExecSockets } from "./exec-session.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { openSocket } from "./open-socket.ts";
import type { QmpClient } from "./qmp-client.ts";

const connectTimeoutMs = 5_000;
const releaseTimeoutMs = 5_000;
const releaseRetryMs = 20;

/** The names that the guest sees are `NAME.in`, `NAME.out` and `NAME.err`. */
export function execPortName(slot: number): string {
  return `org.strata.exec${slot}`;
}

/**
 * Puts a command's ports into the machine, in place of those that a daemon which was killed left there.
 * @throws Unavailable when no agent runs in the guest: then nobody would use them.
 */
export async function plugExecPorts(
  guest: GuestLifecycle,
  slot: number,
  options: { clock: Clock; signal: AbortSignal },
): Promise<void> {
  await guest.withMonitor(
    async (monitor) => {
      if (!(await isAgentThere(monitor))) {
        throw new StrataError(
          "Unavailable",
          "no guest agent is running in the guest; it may still be booting, or it needs the package qemu-guest-agent",
        );
      }
      for (const stream of execStreams) {
        const id = execChardev(slot, stream);
        await monitor.execute("device_del", { id }).catch((error) => {
          if (!hasCode(error, "Internal")) throw error; // there is none
        });
        const name = `${execPortName(slot)}.${stream}`;
        await addPort(monitor, { driver: "virtserialport", bus: "ports.0", id, chardev: id, name }, options);
      }
    },
    { signal: options.signal },
  );
}

/** QEMU holds on to what a removed device used for a moment longer, and says only that it is in use. */
async function addPort(
  monitor: QmpClient,
  device: JsonObject,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<void> {
  const deadline = clock.monotonicMs() + releaseTimeoutMs;
  for (;;) {
    try {
      await monitor.execute("device_add", device);
      return;
    } catch (error) {
      if (!hasCode(error, "Internal") || clock.monotonicMs() > deadline) throw error;
    }
    await clock.sleep(releaseRetryMs, signal);
  }
}

/** Absent is success. */
export async function unplugExecPorts(guest: GuestLifecycle, slot: number): Promise<void> {
  await guest.withMonitor(async (monitor) => {
    for (const stream of execStreams) {
      await monitor.execute("device_del", { id: execChardev(slot, stream) }).catch((error) => {
        if (!hasCode(error, "Internal")) throw error;
      });
    }
  });
}

export async function connectExecPorts(
  directory: string,
  slot: number,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<ExecSockets> {
  const sockets = {} as Record<ExecStream, Socket>;
  try {
    for (const stream of execStreams) {
      const path = join(directory, `${execChardev(slot, stream)}.sock`);
      sockets[stream] = await openSocket(path, { clock, timeoutMs: connectTimeoutMs }, signal);
    }
    return sockets;
  } catch (error) {
    for (const socket of Object.values(sockets)) socket.destroy();
    throw error;
  }
}

/** Does an agent in the guest hold its port open? */
export async function isAgentThere(monitor: QmpClient): Promise<boolean> {
  const chardevs = await monitor.execute("query-chardev");
  if (!Array.isArray(chardevs)) return false;
  return chardevs.some(
    (each) => isJsonObject(each) && each.label === "agent" && each["frontend-open"] === true,
  );
}
