import type { RawData, WebSocket } from "ws";

/** Octets that may wait in front of one end before the other is no longer read. */
const highWaterBytes = 1024 * 1024;
const lowWaterBytes = 256 * 1024;

/**
 * Passes messages both ways between two paused sockets, as they are, reading each no faster than the other takes them,
 * until both are closed. An end that breaks shows at the other as an `error` control message and close code 1011.
 */
export function splice(client: WebSocket, agent: WebSocket): void {
  pass(client, agent, "the client went away");
  pass(agent, client, "the agent went away");
}

function pass(from: WebSocket, to: WebSocket, brokenMessage: string): void {
  let paused = false;
  from.on("message", (data: RawData, isBinary: boolean) => {
    if (to.readyState !== to.OPEN) return;
    to.send(data as Buffer, { binary: isBinary }, () => {
      if (!paused || to.bufferedAmount > lowWaterBytes) return;
      paused = false;
      from.resume();
    });
    if (paused || to.bufferedAmount <= highWaterBytes) return;
    paused = true;
    from.pause();
  });
  from.on("error", () => from.terminate());
  const ended = (code: number, reason: Buffer) => {
    // What was paused for the sake of `from` must be read on, or its end would never be seen.
    to.resume();
    if (to.readyState !== to.OPEN) return;
    if (isOrderly(code)) {
      to.close(code, reason);
      return;
    }
    const problem = { code: "Unavailable", detail: `the session broke: ${brokenMessage}` };
    to.send(JSON.stringify({ type: "error", problem }));
    to.close(1011, brokenMessage);
  };
  from.on("close", ended);
  if (from.readyState === from.CLOSED) ended(1006, Buffer.alloc(0));
  else from.resume();
}

/** Close codes that an endpoint may send (RFC 6455, 7.4); the others only report what happened. */
function isOrderly(code: number): boolean {
  return (
    (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999)
  );
}
