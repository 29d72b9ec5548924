/**
 * From an artefact to an entry of the image directory. Whatever the format, its tree takes the same way: a root archive,
 * checked (root-archive), unpacked in a jail (unpack-archive), looked into (tree-inspection), hashed and added.
 */
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { formatBytes } from "../../core/units.ts";
import type { ArtefactFormat, Boot, ImageOrigin } from "../../kinds/image.ts";
import { unpackAppliance } from "./appliance/unpack-appliance.ts";
import { type Artefact, maxArtefactBytes } from "./artefact.ts";
import { unpackStream } from "./decompression.ts";
import { type DiskEntryRequest, readDiskEntry } from "./disk-entry.ts";
import type { DiskFormat } from "./disk-formats/disk-header.ts";
import type { Description, EntryPaths } from "./entry-files.ts";
import { addEntry, startDraft } from "./image-entries.ts";
import type { MakeImageOptions, RootSource } from "./image-store.ts";
import type { JobDirectory } from "./job-directory.ts";
import { readImageArchive } from "./layers/image-archive.ts";
import { stepsOf } from "./layers/layer-steps.ts";
import { mergedArchive } from "./layers/merged-archive.ts";
import type { ArchiveLimits } from "./root-archive.ts";
import { inspectTree } from "./tree-inspection.ts";
import { unpackRootArchive } from "./unpack-archive.ts";

export interface ImportContext {
  imageDir: string;
  idBase: number;
  limits: ArchiveLimits;
  maxDiskBytes: number;
}

/** How to read an artefact. */
export interface ArtefactForm {
  format: ArtefactFormat;
  /** Root archives: the directory that is the root. */
  below?: string;
  boot?: Boot | undefined;
}

export interface RootArchive {
  archive: AsyncIterable<Uint8Array>;
  packedBytes(): number;
  below?: string;
  forgetIdentity?: boolean;
  /** How much of the archive has been read, 0 to 1; absent where nobody knows. */
  fraction?(): number;
}

/** Share of the time that is left for reading and hashing the tree. */
const unpackedFraction = 0.95;

/** Incus and LXD keep the root beside what describes it. */
const templateRoot = "rootfs";

const notPacked = () => Number.POSITIVE_INFINITY;

/** Takes down how an image comes to be. */
export type NoteOrigin = (part: Partial<ImageOrigin>) => void;

export async function importArtefact(
  context: ImportContext,
  job: JobDirectory,
  artefact: Artefact,
  { format, below, boot, note }: ArtefactForm & { note: NoteOrigin },
  options: MakeImageOptions,
): Promise<Description> {
  const { signal, onProgress } = options;
  note({ artefact: { format, sha256: artefact.sha256, sizeBytes: artefact.sizeBytes } });
  switch (format) {
    case "ova": {
      onProgress({ step: "unpacking the appliance" });
      const archive = unpackStream(artefact.read(), artefact.packing, signal);
      const disk = await unpackAppliance(archive, job.path, { maxBytes: maxArtefactBytes }, signal);
      return importDisk(context, job, plainArtefact(disk.path), { format: disk.format, boot }, options);
    }
    case "oci":
    case "docker": {
      onProgress({ step: "reading the layers" });
      const outer = unpackStream(artefact.read(), artefact.packing, signal);
      const { layers, config } = await readImageArchive(outer, job.path, maxArtefactBytes, signal);
      note({ steps: stepsOf(config) });
      const archive = mergedArchive(layers, context.limits, signal);
      return importArchive(context, job, options, { archive, packedBytes: notPacked });
    }
    case "tar":
      return importArchive(context, job, options, packedArchive(artefact, below, signal));
    case "lxc":
      return importArchive(context, job, options, packedArchive(artefact, templateRoot, signal));
    default:
      return importDisk(context, job, artefact, { format, boot }, options);
  }
}

export async function importArchive(
  context: ImportContext,
  job: JobDirectory,
  options: MakeImageOptions,
  made: RootArchive,
): Promise<Description> {
  const { imageDir, idBase } = context;
  const draft = await startDraft(job, idBase);
  const capabilities = await unpack(context, job, draft, options, made);
  options.onProgress({ step: "reading and hashing the tree", fraction: unpackedFraction });
  const inspection = await inspectTree(draft.tree);
  const { limitation } = inspection;
  const { signal } = options;
  const tree = { capabilities, inspection };
  return addEntry({ imageDir, job, draft, tree, limitation, idBase, signal });
}

/** What an archive says of who the machine is is left out; a disk stays as it is. @throws as importArtefact. */
export function importRoot(
  context: ImportContext,
  job: JobDirectory,
  root: RootSource,
  options: MakeImageOptions,
): Promise<Description> {
  if ("disk" in root) {
    const form = { format: "raw", boot: "firmware", withTree: false } as const;
    return importDisk(context, job, plainArtefact(root.disk), form, options);
  }
  const archive = { archive: root.archive, packedBytes: notPacked, forgetIdentity: true };
  return importArchive(context, job, options, archive);
}

async function importDisk(
  context: ImportContext,
  job: JobDirectory,
  artefact: DiskEntryRequest["artefact"],
  { format, boot, withTree = true }: { format: DiskFormat; boot: Boot | undefined; withTree?: boolean },
  options: MakeImageOptions,
): Promise<Description> {
  const { imageDir, idBase, maxDiskBytes } = context;
  const { signal, onProgress } = options;
  const draft = await startDraft(job, idBase);
  const entry = await readDiskEntry({
    ...{ artefact, format, boot, withTree, idBase, maxDiskBytes, signal, tree: draft.tree },
    job: { path: job.path, jail: jailOf(job) },
    onStep: (step) => onProgress({ step }),
    unpack: (archive) => unpack(context, job, draft, options, { archive, packedBytes: notPacked }),
  });
  onProgress({ step: "reading and hashing the tree", fraction: unpackedFraction });
  return addEntry({ imageDir, job, draft, ...entry, idBase, signal });
}

function packedArchive(artefact: Artefact, below: string | undefined, signal: AbortSignal): RootArchive {
  const packed = artefact.read();
  return {
    archive: unpackStream(packed, artefact.packing, signal),
    packedBytes: () => (artefact.packing === "none" ? Number.POSITIVE_INFINITY : packed.bytesRead),
    fraction: () => (unpackedFraction * packed.bytesRead) / artefact.sizeBytes,
    ...(below && { below }),
  };
}

async function unpack(
  { limits, idBase }: ImportContext,
  job: JobDirectory,
  draft: EntryPaths,
  { signal, onProgress }: MakeImageOptions,
  made: RootArchive,
): Promise<ReadonlyMap<string, string>> {
  const { capabilities } = await unpackRootArchive({
    ...{ ...made, limits, tree: draft.tree, jail: jailOf(job), idBase, signal },
    onBytes(bytes) {
      const step = `unpacking: ${formatBytes(bytes)}`;
      onProgress(made.fraction ? { step, fraction: made.fraction() } : { step });
    },
  });
  return capabilities;
}

function plainArtefact(path: string): DiskEntryRequest["artefact"] {
  return { path, packing: "none", read: () => createReadStream(path) };
}

/** Where jails are mounted, in a namespace of their own each: the directory itself stays empty. */
export function jailOf(job: JobDirectory): string {
  return join(job.path, "jail");
}
