import { createHash } from "node:crypto";
import type { ImageSession } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { AgentContext } from "../agent-context.ts";
import { exportParameters, readParameters } from "./parameters.ts";
import { pump, type SessionEnds, stdoutChannel } from "./splice.ts";

/**
 * Sends an image in a format: progress while it is written, its bytes, then `done` with their number and checksum, so
 * that whoever receives it knows that it is complete.
 * @throws NotFound when the image is not on this host.
 */
export async function serveExport(
  { images, views, hostName }: AgentContext,
  { image: { project, name, uid }, parameters }: ImageSession,
  { channel, inbox }: SessionEnds,
  signal: AbortSignal,
): Promise<void> {
  const { format } = readParameters(exportParameters, "export", parameters);
  const image = views.images.find({ project, name });
  const { digest } = image?.status ?? {};
  if (image?.metadata.uid !== uid || image.status.host !== hostName || digest === undefined) {
    throw new StrataError("NotFound", `image "${name}" is not on host ${hostName}`);
  }
  inbox.open(undefined);
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
  await images.export(digest, format, (bytes) => pump(counted(bytes), channel, stdoutChannel), {
    signal,
    onProgress: ({ step, fraction }) =>
      channel.sendControl({ type: "progress", step, ...(fraction !== undefined && { fraction }) }),
  });
  channel.sendControl({ type: "done", sizeBytes, sha256: sum.digest("hex") });
}
