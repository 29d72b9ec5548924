import { connect, type Socket } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";

const retryMs = 20;

/**
 * Connects to one of QEMU's sockets. QEMU lets hardly anybody wait in line (a backlog of 1): while the line is full, it
 * is tried again until the time is over.
 * @throws Unavailable when nobody listens, Timeout, the signal's reason.
 */
export async function openSocket(
  path: string,
  { clock, timeoutMs }: { clock: Clock; timeoutMs: number },
  signal?: AbortSignal,
): Promise<Socket> {
  const deadline = clock.monotonicMs() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const socket = connect({ path });
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      socket.once("connect", () => resolve(undefined));
      socket.once("error", resolve);
    });
    // Whoever uses it is told by its closing; until then, an error of a socket that nobody looks at is nobody's.
    socket.on("error", () => {});
    if (error === undefined) return socket;
    if (error.code !== "EAGAIN") {
      throw new StrataError("Unavailable", "the guest has just ended, or is not running", { cause: error });
    }
    if (clock.monotonicMs() >= deadline) {
      throw new StrataError("Timeout", `QEMU was busy with others for ${timeoutMs} ms`, { detail: path });
    }
    await clock.sleep(retryMs, signal);
  }
}
