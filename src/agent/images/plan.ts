import { type Instant, toTimestamp } from "../../core/clock.ts";
import type { StoredImage } from "../../host/images/image-store.ts";
import type { Image, ImageStatus } from "../../kinds/image.ts";
import { withCondition } from "../../kinds/kind.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface ImageWorld {
  hostName: string;
  image: Image | undefined;
  /** What status.digest names is on this host. */
  present: boolean;
  /** Made by this process and not reported yet. */
  made: StoredImage | undefined;
}

export type ImageAction = { type: "make"; image: Image } | { type: "finalize"; image: Image };

/** What takes longer than this is told while it is under way. */
const newsAfterMs = 100;

/** An image is made once, on the host that it was given to, and again should its content be gone from there. */
export function planImage(world: ImageWorld, now: Instant): Plan<ImageAction, ImageStatus> {
  const { image, made } = world;
  const nothing = { status: undefined, actions: [] };
  if (!image || image.status.host !== world.hostName) return nothing;
  const { status, metadata } = image;
  if (metadata.generation < status.observedGeneration) return nothing;
  if (metadata.deletedAt !== undefined) return planDeletion(image);
  if (made) return { status: readyStatus(image, made, now), actions: [] };
  const observed = { ...status, observedGeneration: metadata.generation };
  if (status.state === "ready" && world.present) return { status: observed, actions: [] };
  const changed = metadata.generation !== status.observedGeneration;
  if (status.state === "failed" && !changed) return { status, actions: [] };
  if (image.spec.source.type === "instance" && status.digest !== undefined) {
    const message = "what it was made into is gone from its host, and its instance has something else by now";
    return { status: { ...observed, state: "failed", message }, actions: [] };
  }
  // What a try that failed had to say stays until the next one gets further.
  const message = status.state === "building" ? status.message : "is being made";
  return {
    status: { ...observed, state: "building", message, conditions: madeCondition(image, "unknown", now) },
    actions: [{ type: "make", image }],
    reportAfterMs: newsAfterMs,
  };
}

/** What it was made into goes when nothing refers to it any more: that is found by looking for orphans. */
function planDeletion(image: Image): Plan<ImageAction, ImageStatus> {
  if (!image.metadata.finalizers.includes("agent")) return { status: undefined, actions: [] };
  return { status: undefined, actions: [{ type: "finalize", image }] };
}

function readyStatus(image: Image, made: StoredImage, now: Instant): ImageStatus {
  const { progress, ...kept } = image.status;
  return {
    ...kept,
    state: "ready",
    message: [made.limitation, made.remark]
      .filter((text) => text !== "")
      .join("; ")
      .slice(0, 2000),
    digest: made.digest,
    sizeBytes: made.sizeBytes,
    types: made.types,
    ...(made.boot && { boot: made.boot }),
    ...(made.origin && { origin: made.origin }),
    os: made.os.slice(0, 200),
    observedGeneration: image.metadata.generation,
    conditions: madeCondition(image, "true", now),
  };
}

/** `Made`: unknown while it is being made, false between a try that failed (`message` says why) and the next. */
export function madeCondition(
  image: Image,
  status: "true" | "false" | "unknown",
  now: Instant,
  message = "",
): ImageStatus["conditions"] {
  const reason = { true: "Ready", false: "Failed", unknown: "Building" }[status];
  return withCondition(image.status.conditions, { type: "Made", status, reason, message }, toTimestamp(now));
}
