import type { ImageSession } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { AgentContext } from "../agent-context.ts";
import { consoleParameters, readParameters } from "./parameters.ts";
import { sendWhole } from "./send-whole.ts";
import type { SessionEnds } from "./splice.ts";

/** Sends what an image's build printed until now. @throws NotFound where nothing is kept of it. */
export async function serveBuildLog(
  { images, views, hostName }: AgentContext,
  { image: { project, name, uid }, parameters }: ImageSession,
  { channel, inbox }: SessionEnds,
  signal: AbortSignal,
): Promise<void> {
  readParameters(consoleParameters, "build-log", parameters);
  const image = views.images.find({ project, name });
  const log = image?.metadata.uid === uid ? await images.buildLog(uid) : undefined;
  if (log === undefined) {
    throw new StrataError(
      "NotFound",
      `host ${hostName} keeps no log of image "${name}": logs are of builds of Dockerfiles, of the last 200 on a host, and none is written for an image that was built before from the same input`,
    );
  }
  inbox.open(undefined);
  await sendWhole(channel, signal, (use) => use(log));
}
