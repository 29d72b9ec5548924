import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { Image } from "../../kinds/image.ts";
import type { Progress } from "../../kinds/kind.ts";
import type { AgentContext } from "../agent-context.ts";
import { completeCopies, copyAtOneMoment, rootOf } from "../volumes/moments.ts";
import { removeDisk } from "../volumes/remove-disk.ts";

/**
 * Calls `use` with the root of an instance as it is at one moment, as an archive. It is copied first, so that the
 * instance is kept still for no longer than that; the copy has the image's uid and goes away again.
 */
export async function withRootOf<Result>(
  context: AgentContext,
  { metadata }: Image,
  name: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress(progress: Progress): void },
  use: (archive: AsyncIterable<Uint8Array>) => Promise<Result>,
): Promise<Result> {
  const { disks, views } = context;
  const instance = views.instances.find({ project: metadata.project ?? "", name });
  const digest = instance?.status.imageDigest;
  if (!instance || digest === undefined) {
    throw new StrataError("Invalid", `the instance "${name}" is not on this host any more`);
  }
  onProgress({ step: `copying the root of ${name}` });
  const snapshot = metadata.uid as Uid;
  const disk = rootOf(context, instance);
  const request = { disks: [disk] };
  try {
    const { copying } = await copyAtOneMoment(context, instance, request, snapshot, signal);
    if (copying) await completeCopies(context, request, snapshot, signal);
    return await disks.readRoot({ snapshot, disk }, digest, use, signal);
  } finally {
    await removeDisk(context, { uid: snapshot, of: undefined }, new AbortController().signal);
  }
}
