/**
 * Makes the images that were given to this host, tells how far each has come, and takes them away again. The image
 * store remembers builds by their recipe, so one that was interrupted after its last step is found, not repeated.
 */

import { Readable } from "node:stream";
import type { Instant } from "../../core/clock.ts";
import { isRetryable, toStrataError } from "../../core/errors.ts";
import type { MakeImageOptions, RootSource, StoredImage } from "../../host/images/image-store.ts";
import { type Image, type ImageStatus, imageKind } from "../../kinds/image.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import type { Progress } from "../../kinds/kind.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { withSavedRoot } from "../backups/restore.ts";
import { reportStatus } from "../report.ts";
import { withRootOf } from "./instance-root.ts";
import { type ImageAction, type ImageWorld, madeCondition, planImage } from "./plan.ts";
import { ProgressReports } from "./progress-reports.ts";

export function createImageReconciler(
  context: AgentContext,
): Reconciler<ImageWorld, ImageAction, ImageStatus> {
  return new ImageReconciler(context);
}

class ImageReconciler implements Reconciler<ImageWorld, ImageAction, ImageStatus> {
  readonly name = "images";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  readonly #made = new Map<string, StoredImage>();
  readonly #finalized = new Set<string>();

  constructor(context: AgentContext) {
    this.#context = context;
    const { images } = context.views;
    this.watches = [{ name: "images", urgent: true, keys: (signal) => images.watchKeys(signal) }];
    images.onChange((_key, next, previous) => {
      if (!previous || next?.metadata.uid === previous.metadata.uid) return;
      this.#made.delete(previous.metadata.uid);
      this.#finalized.delete(previous.metadata.uid);
    });
  }

  async observe(key: string): Promise<ImageWorld> {
    const { views, hostName, images } = this.#context;
    const found = views.images.get(key);
    const image = found && this.#finalized.has(found.metadata.uid) ? undefined : found;
    const digest = image?.status.digest;
    const stored = digest === undefined ? undefined : await images.get(digest);
    return {
      hostName,
      image,
      present: stored !== undefined,
      made: image && this.#made.get(image.metadata.uid),
    };
  }

  plan(world: ImageWorld, now: Instant) {
    return planImage(world, now);
  }

  async execute(action: ImageAction, signal: AbortSignal): Promise<void> {
    switch (action.type) {
      case "make":
        return this.#make(action.image, signal);
      case "finalize": {
        const { metadata } = action.image;
        const { client, images } = this.#context;
        await images.removeBuildLog(metadata.uid);
        await client.removeFinalizer(imageKind, metadata as Ref, metadata.uid, "agent", { signal });
        this.#finalized.add(metadata.uid);
      }
    }
  }

  async report(_key: string, world: ImageWorld, status: ImageStatus, signal: AbortSignal): Promise<void> {
    const { image } = world;
    if (!image) return;
    const { client, views, events } = this.#context;
    const told = await reportStatus(client, imageKind, views.images, image, status, signal);
    if (status.state !== "ready") return;
    this.#made.delete(image.metadata.uid);
    if (told && image.status.state !== "ready") {
      const message =
        `made on host ${this.#context.hostName}: ${status.os ?? ""} ${status.digest ?? ""}`.trim();
      events.record(image, { severity: "normal", reason: "Ready", message });
    }
  }

  async failed(key: string, failure: Failure<ImageWorld>, signal: AbortSignal): Promise<void> {
    const image = this.#context.views.images.get(key);
    if (!image || image.status.host !== this.#context.hostName) return;
    if (image.metadata.deletedAt !== undefined) return;
    const error = toStrataError(failure.error, `make image "${image.metadata.name}"`);
    const again = isRetryable(error.code);
    const hint = await this.#logHint(image);
    const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
    const { progress, ...kept } = image.status;
    const status: ImageStatus = {
      ...kept,
      state: again ? "building" : "failed",
      message: `${error.message.slice(0, 1800)}${hint}${again ? `; trying again in ${seconds} s` : ""}`,
      observedGeneration: image.metadata.generation,
      conditions: madeCondition(image, "false", this.#context.clock.now(), error.message.slice(0, 1000)),
    };
    const { client, views, events } = this.#context;
    const told = await reportStatus(client, imageKind, views.images, image, status, signal);
    if (told && !again) {
      events.record(image, { severity: "warning", reason: "Failed", message: error.message.slice(0, 1000) });
    }
  }

  /** Where the rest is, when a build has printed more than its message can hold. */
  async #logHint({ metadata, spec }: Image): Promise<string> {
    if (spec.source.type !== "dockerfile") return "";
    const log = await this.#context.images.buildLog(metadata.uid);
    return log ? `\nall that the build printed: strata image log ${metadata.name}` : "";
  }

  /** Deletion ends a build under way. */
  obsolete(key: string, world: ImageWorld): boolean {
    if (!world.image || world.image.metadata.deletedAt !== undefined) return false;
    const now = this.#context.views.images.get(key);
    return now === undefined || now.metadata.deletedAt !== undefined;
  }

  /** What has its root from elsewhere is handed it. */
  #stored(
    image: Image,
    ofRoot: (root: RootSource) => Promise<StoredImage>,
    options: MakeImageOptions,
  ): Promise<StoredImage> {
    const { source } = image.spec;
    if (source.type === "instance") {
      const ofArchive = (archive: AsyncIterable<Uint8Array>) => ofRoot({ archive });
      return withRootOf(this.#context, image, source.instance, options, ofArchive);
    }
    if (source.type === "backup") {
      return withSavedRoot(this.#context, image, source.backup, options, ofRoot);
    }
    return this.#context.images.make(source, options);
  }

  async #make(image: Image, signal: AbortSignal): Promise<void> {
    const { client, images, views, clock, logger } = this.#context;
    const reports = new ProgressReports({
      clock,
      logger,
      send: async (progress) => {
        const current = views.images.byUid(image.metadata.uid);
        if (!current) return;
        await reportStatus(client, imageKind, views.images, current, { ...current.status, progress }, signal);
      },
    });
    const project = image.metadata.project ?? "";
    const options = {
      signal,
      project,
      logName: image.metadata.uid,
      onProgress: (progress: Progress) => reports.add(progress),
      findImage: async (name: string) => {
        const found = views.images.get(resourceKey(imageKind, { project, name }));
        return found?.status.state === "ready" ? found.status.digest : undefined;
      },
      openUpload: async (upload: string) => Readable.from(await client.download(upload, { signal })),
    };
    const { source } = image.spec;
    const { uid } = image.metadata;
    try {
      const ofRoot = (root: RootSource) => images.make(source, { ...options, root });
      this.#made.set(uid, await this.#stored(image, ofRoot, options));
    } finally {
      await reports.end();
    }
  }
}
