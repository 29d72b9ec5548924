import { createHash } from "node:crypto";
import { StrataError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import type { Channel } from "./client.ts";

const dataChannel = 1;
const maxBytes = 256 * 1024 ** 2;

/**
 * All that is sent on a channel up to `done` {sizeBytes, sha256}.
 * @throws what the other end says went wrong; Unavailable when it ends early; the signal's reason.
 */
export async function receiveAll(channel: Channel, signal: AbortSignal): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const sum = createHash("sha256");
  let sizeBytes = 0;
  let done: JsonObject | undefined;
  const over = Promise.withResolvers<void>();
  channel.onData = (number, data) => {
    if (number !== dataChannel) return;
    sizeBytes += data.length;
    if (sizeBytes > maxBytes) return channel.close();
    sum.update(data);
    parts.push(Uint8Array.from(data));
  };
  channel.onControl = (message) => {
    if (message.type === "done") done = message;
  };
  channel.onClose = (error) => (error ? over.reject(error) : over.resolve());
  const onAbort = () => channel.close();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await over.promise;
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", onAbort);
    channel.close();
  }
  if (done?.sizeBytes !== sizeBytes || done.sha256 !== sum.digest("hex")) {
    throw new StrataError("Unavailable", "the answer ended before all of it came; try again");
  }
  return Buffer.concat(parts);
}
