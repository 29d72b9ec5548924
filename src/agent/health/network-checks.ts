/** What a health check asks of a guest over the network, from the host. */

import { connect } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { request } from "../../core/node-http.ts";
import type { ConnectTarget } from "../instances/probes.ts";

/** `saw`: what was there instead of health, for people: `answered 503`. */
export type Outcome = { healthy: true } | { healthy: false; saw: string; unsupported?: boolean };

/** They reject only when aborted. */
export interface NetworkChecks {
  /** Is a TCP connection accepted? */
  tcp(target: ConnectTarget, timeoutMs: number, signal: AbortSignal): Promise<Outcome>;
  /** Is GET answered with 2xx or 3xx? The body is not read. */
  http(target: ConnectTarget & { path: string }, timeoutMs: number, signal: AbortSignal): Promise<Outcome>;
}

export function createNetworkChecks(clock: Clock): NetworkChecks {
  return {
    tcp: ({ address, port, from }, timeoutMs, signal) =>
      timed(clock, timeoutMs, signal, `port ${port}`, (settle) => {
        const socket = connect({ host: address, port, localAddress: from });
        socket.once("connect", () => settle({ healthy: true }));
        socket.on("error", (error) => settle(failure(`port ${port}`, error)));
        return () => socket.destroy();
      }),
    http: ({ address, port, from, path }, timeoutMs, signal) => {
      const what = `GET ${path} on port ${port}`;
      return timed(clock, timeoutMs, signal, what, (settle) => {
        const asked = request({
          host: address,
          port,
          path,
          localAddress: from,
          agent: false,
          headers: { "user-agent": "strata-health-check", connection: "close" },
        });
        asked.once("response", ({ statusCode = 0 }) => {
          const healthy = statusCode >= 200 && statusCode < 400;
          settle(healthy ? { healthy } : { healthy, saw: `${what} was answered with status ${statusCode}` });
        });
        asked.on("error", (error) => settle(failure(what, error)));
        asked.end();
        return () => asked.destroy();
      });
    },
  };
}

/** `begin` returns how to let go of it. Its first word counts. */
function timed(
  clock: Clock,
  timeoutMs: number,
  signal: AbortSignal,
  what: string,
  begin: (settle: (outcome: Outcome) => void) => () => unknown,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    let release = (): unknown => undefined;
    const finish = (end: () => void) => {
      cancelTimer();
      signal.removeEventListener("abort", onAbort);
      release();
      end();
    };
    const onAbort = () => finish(() => reject(signal.reason));
    const late = { healthy: false, saw: `${what} did not answer within ${timeoutMs} ms` } as const;
    const cancelTimer = clock.after(timeoutMs, () => finish(() => resolve(late)));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      release = begin((outcome) => finish(() => resolve(outcome)));
    } catch (error) {
      // A request that cannot even be made, such as one for a path that HTTP does not have.
      finish(() => resolve(failure(what, error as Error)));
    }
  });
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: "refused the connection",
  ECONNRESET: "broke the connection off",
  EHOSTUNREACH: "cannot be reached",
  ENETUNREACH: "cannot be reached",
  ETIMEDOUT: "did not answer",
};

function failure(what: string, error: NodeJS.ErrnoException): Outcome {
  const word = words[error.code ?? ""] ?? `failed: ${error.message.slice(0, 200)}`;
  return { healthy: false, saw: `${what} ${word}` };
}
