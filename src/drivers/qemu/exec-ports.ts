/** Virtio-serial ports for commands: plugged in for one command, taken out after it. */
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { hasCode, StrataError } from "../../core/errors.ts";
import { isJsonObject, type Json } from "../../core/json.ts";
import { type ExecStream, execChardev, execStreams } from "./command-line.ts";
import type { ExecSockets } from "./exec-session.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";

/** The names that the guest sees are `NAME.in`, `NAME.out` and `NAME.err`. */
export function execPortName(slot: number): string {
  return `org.strata.exec${slot}`;
}

/**
 * Puts a command's ports into the machine, in place of those that a daemon which was killed left there.
 * @throws Unavailable when no agent runs in the guest: then nobody would use them.
 */
export async function plugExecPorts(guest: GuestLifecycle, slot: number, signal: AbortSignal): Promise<void> {
  await guest.withMonitor(
    async (monitor) => {
      if (!isOpenInGuest(await monitor.execute("query-chardev"), "agent")) {
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
        await monitor.execute("device_add", {
          driver: "virtserialport",
          bus: "ports.0",
          id,
          chardev: id,
          name: `${execPortName(slot)}.${stream}`,
        });
      }
    },
    { signal },
  );
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

export async function connectExecPorts(directory: string, slot: number): Promise<ExecSockets> {
  const sockets = {} as Record<ExecStream, Socket>;
  try {
    for (const stream of execStreams) {
      const socket = connect({
        path: join(directory, `${execChardev(slot, stream)}.sock`),
        allowHalfOpen: true,
      });
      sockets[stream] = socket;
      await new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", reject);
      });
    }
    return sockets;
  } catch (cause) {
    for (const socket of Object.values(sockets)) socket.destroy();
    throw new StrataError("Unavailable", "the guest ended before the command began", { cause });
  }
}

function isOpenInGuest(chardevs: Json, label: string): boolean {
  if (!Array.isArray(chardevs)) return false;
  return chardevs.some(
    (each) => isJsonObject(each) && each.label === label && each["frontend-open"] === true,
  );
}
