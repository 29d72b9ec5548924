import type { ImageSession } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { AgentContext } from "../agent-context.ts";
import { exportParameters, readParameters } from "./parameters.ts";
import { sendWhole } from "./send-whole.ts";
import type { SessionEnds } from "./splice.ts";

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
  await sendWhole(channel, signal, (use) =>
    images.export(digest, format, use, {
      signal,
      onProgress: ({ step, fraction }) =>
        channel.sendControl({ type: "progress", step, ...(fraction !== undefined && { fraction }) }),
    }),
  );
}
