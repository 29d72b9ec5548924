import { createHash } from "node:crypto";
import type { Channel } from "../../client/client.ts";
import { pump, stdoutChannel } from "./splice.ts";

type Use = (bytes: AsyncIterable<Uint8Array>) => Promise<void>;

/**
 * Sends what `produce` gives to its argument, then `done` with the number of bytes and their checksum, so that whoever
 * receives it knows that it is complete.
 */
export async function sendWhole(
  channel: Channel,
  signal: AbortSignal,
  produce: (use: Use) => Promise<void>,
): Promise<void> {
  const sum = createHash("sha256");
  let sizeBytes = 0;
  const counted = async function* (bytes: AsyncIterable<Uint8Array>) {
    for await (const chunk of bytes) {
      signal.throwIfAborted();
      sum.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  };
  await produce((bytes) => pump(counted(bytes), channel, stdoutChannel));
  channel.sendControl({ type: "done", sizeBytes, sha256: sum.digest("hex") });
}
