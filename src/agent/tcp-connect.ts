import { connect } from "node:net";
import type { Clock } from "../core/clock.ts";
import type { Connect } from "./instances/probes.ts";

/** Asks over TCP from the host, whose routing follows the address that is connected from. */
export function tcpConnect(clock: Clock): Connect {
  return ({ address, port, from }, timeoutMs, signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const socket = connect({ host: address, port, localAddress: from });
      const finish = (settle: () => void) => {
        cancelTimer();
        signal.removeEventListener("abort", onAbort);
        socket.destroy();
        settle();
      };
      const onAbort = () => finish(() => reject(signal.reason));
      const cancelTimer = clock.after(timeoutMs, () => finish(() => resolve(false)));
      signal.addEventListener("abort", onAbort, { once: true });
      socket.once("connect", () => finish(() => resolve(true)));
      socket.once("error", () => finish(() => resolve(false)));
    });
}
