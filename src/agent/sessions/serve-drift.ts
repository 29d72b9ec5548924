import { Readable } from "node:stream";
import { toTimestamp } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Drift, GuestDriver, GuestRoot } from "../../drivers/driver.ts";
import { compareRoots } from "../../host/drift/compare-roots.ts";
import { type Difference, type DriftReport, maxDifferences } from "../../kinds/drift.ts";
import type { Instance } from "../../kinds/instance.ts";
import { mountPathOf } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { recordedVolumes } from "../volumes/guest-volumes.ts";
import { sendWhole } from "./send-whole.ts";
import type { SessionEnds } from "./splice.ts";

const chunkBytes = 64 * 1024;

interface Subject {
  instance: Instance;
  driver: GuestDriver;
  handle: JsonObject;
  drift: Drift<JsonObject>;
}

/** Compares an instance's root with its image and sends the report (kinds/drift.ts) as JSON. */
export async function serveDrift(
  context: AgentContext,
  subject: Subject,
  { channel, inbox }: SessionEnds,
  signal: AbortSignal,
): Promise<void> {
  inbox.open(undefined);
  const report = Buffer.from(JSON.stringify(await examine(context, subject, signal)));
  const chunks = async function* () {
    for (let at = 0; at < report.length; at += chunkBytes) yield report.subarray(at, at + chunkBytes);
  };
  await sendWhole(channel, signal, (use) => use(Readable.from(chunks())));
}

/** @throws Conflict while there is no root to look at. */
async function examine(
  context: AgentContext,
  { instance, driver, handle, drift }: Subject,
  signal: AbortSignal,
): Promise<DriftReport> {
  const { name, deletedAt } = instance.metadata;
  const { imageDigest } = instance.status;
  if (deletedAt !== undefined || imageDigest === undefined) {
    throw new StrataError(
      "Conflict",
      `instance "${name}" is ${instance.status.state}: it has no root to look at`,
    );
  }
  const original = await context.images.entries(imageDigest);
  const { dataPaths } = (await context.images.get(imageDigest)) ?? {};
  const at = toTimestamp(context.clock.now());
  const root = await rootOf(context, driver, instance, imageDigest, signal);
  const volumes = driver.volumes?.takes === "mount" ? recordedVolumes(context, instance) : [];
  const mounts = volumes.map(mountPathOf);
  const { listings, reading } = await drift.read(handle, { root, original }, signal);
  return { imageDigest, at, reading, ...firstOf(compareRoots(original, listings, mounts, dataPaths)) };
}

export function firstOf(differences: readonly Difference[]): Pick<DriftReport, "differences" | "more"> {
  const more = differences.length - maxDifferences;
  return { differences: differences.slice(0, maxDifferences), ...(more > 0 && { more }) };
}

async function rootOf(
  { disks, images, views }: AgentContext,
  driver: GuestDriver,
  { metadata, spec, status }: Instance,
  imageDigest: string,
  signal: AbortSignal,
): Promise<GuestRoot> {
  if (driver.root === "image") {
    return { type: "image", digest: imageDigest, ...(await images.containerTree(imageDigest, signal)) };
  }
  const [key] = views.volumesByOwner.keysOf(metadata.uid);
  const volume = key === undefined ? undefined : views.volumes.get(key);
  if (!volume) throw new StrataError("Conflict", `instance "${metadata.name}" has no root volume`);
  const { uid } = volume.metadata;
  const { sizeMib } = volume.spec;
  const generation = status.observedRebuilds ?? 0;
  return disks.ensureRoot({ uid, type: spec.type, sizeMib, imageDigest, generation }, signal);
}
