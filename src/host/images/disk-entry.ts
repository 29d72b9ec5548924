/**
 * An image made of a disk. Where its root file system can be read, the tree is taken out of it as from any archive;
 * how a VM starts is then either
 *
 * - `direct`: with the tree's own kernel, from a disk made of the tree (one image for every type of guest), or
 * - `firmware`: from the disk as it came, by its own boot loader, byte for byte.
 *
 * Left open, it is direct where the tree holds all that the disk held and has a kernel, firmware otherwise. Asked for
 * direct, only the root is taken of the disk.
 */
import { createHash, hash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { hasCode, StrataError } from "../../core/errors.ts";
import { canonicalJson } from "../../core/json.ts";
import type { Boot } from "../../kinds/image.ts";
import { run } from "../run.ts";
import type { Packing } from "./decompression.ts";
import type { DiskFormat } from "./disk-formats/disk-header.ts";
import { isZero, reader, toRawDisk, unpackDisk } from "./disk-import.ts";
import { type DiskSurvey, type Firmware, surveyDisk } from "./disk-survey.ts";
import { archiveFileSystems } from "./ext4-archive.ts";
import { inspectTree, type TreeInspection } from "./tree-inspection.ts";

/** A disk that VMs start from as it is. */
export interface OwnDisk {
  /** The qcow2 file made of it. */
  path: string;
  firmware: Firmware;
  sizeMib: number;
  /** Hash over the disk's content: sizes and all blocks that are not zero. */
  contentSha256: string;
}

export interface UnpackedTree {
  capabilities: ReadonlyMap<string, string>;
  inspection: TreeInspection;
}

export interface DiskEntryRequest {
  artefact: { path: string; packing: Packing; read(): AsyncIterable<Uint8Array> };
  format: DiskFormat;
  boot: Boot | undefined;
  /** False: no tree is taken out of it, because it is one machine's own disk. */
  withTree: boolean;
  job: { path: string; jail: string };
  /** Of the entry in the making; holds nothing when the disk has no root that can be read. */
  tree: string;
  idBase: number;
  maxDiskBytes: number;
  signal: AbortSignal;
  onStep(step: string): void;
  unpack(archive: AsyncIterable<Uint8Array>): Promise<ReadonlyMap<string, string>>;
}

/** What the entry is made of: a tree, a disk of its own, or both. */
export interface DiskEntry {
  tree?: UnpackedTree;
  disk?: OwnDisk;
  /** Why it cannot start as a container; "" when it can. */
  limitation: string;
}

const hashBlockBytes = 64 * 1024;
const convertTimeoutMs = 30 * 60_000;

/**
 * @throws Invalid for a disk that is damaged, refers to other files or cannot start; Unsupported when direct boot is
 * asked for and no root file system can be read.
 */
export async function readDiskEntry(request: DiskEntryRequest): Promise<DiskEntry> {
  const { artefact, format, job, idBase, maxDiskBytes, signal, onStep } = request;
  onStep("reading the disk");
  const path = artefact.packing === "none" ? artefact.path : await unpackDisk(artefact, maxDiskBytes, signal);
  const raw = await toRawDisk({ path, format, job, idBase, maxDiskBytes, signal });
  let survey: DiskSurvey;
  let tree: UnpackedTree | StrataError;
  {
    await using file = await open(raw.path, "r");
    survey = await surveyDisk(reader(file), raw.sizeBytes);
    if (request.boot === "firmware" && !survey.firmware) throw noBootLoader(survey);
    tree = request.withTree ? await readTree(request, survey) : machinesOwn();
  }
  const boot = request.boot ?? chooseBoot(survey, tree);
  if (boot === "direct") {
    if (tree instanceof StrataError) throw tree;
    await rm(raw.path);
    return { tree, limitation: tree.inspection.limitation };
  }
  const disk = await keepDisk(request, raw, survey);
  if (!(tree instanceof StrataError)) return { tree, disk, limitation: "" };
  return { disk, limitation: `it cannot start as a container: ${tree.message}` };
}

function chooseBoot(survey: DiskSurvey, tree: UnpackedTree | StrataError): Boot {
  if (!survey.firmware) return "direct";
  if (tree instanceof StrataError) return "firmware";
  return survey.elsewhere.length === 0 && tree.inspection.boot ? "direct" : "firmware";
}

/** Or why there is none, which only matters when it is needed. */
async function readTree(
  { tree, unpack, boot }: DiskEntryRequest,
  { fileSystems, problem, elsewhere, firmware }: DiskSurvey,
): Promise<UnpackedTree | StrataError> {
  if (!fileSystems)
    return problem ?? new StrataError("Unsupported", "no root file system was found on the disk");
  if (boot === undefined && !firmware && elsewhere.length > 0) {
    return new StrataError(
      "Unsupported",
      `the disk has ${elsewhere.join(", ")} besides its root, and no boot loader; import it with the boot "direct" to take the root alone`,
    );
  }
  try {
    const capabilities = await unpack(archiveFileSystems(fileSystems));
    return { capabilities, inspection: await inspectTree(tree) };
  } catch (error) {
    if (!hasCode(error, "Invalid") && !hasCode(error, "Unsupported")) throw error;
    await rm(tree, { recursive: true, force: true });
    return error as StrataError;
  }
}

async function keepDisk(
  { job, signal, onStep }: DiskEntryRequest,
  raw: { path: string; sizeBytes: number },
  survey: DiskSurvey,
): Promise<OwnDisk> {
  if (!survey.firmware) throw noBootLoader(survey);
  onStep("keeping the disk");
  const contentSha256 = await hashDisk(raw, signal);
  const path = join(job.path, "own-disk.qcow2");
  // A guest's disk has whole MiB; the rest reads as zeros.
  const sizeMib = Math.ceil(raw.sizeBytes / 1024 ** 2);
  await using file = await open(raw.path, "r+");
  await file.truncate(sizeMib * 1024 ** 2);
  const options = ["convert", "-f", "raw", "-O", "qcow2", raw.path, path];
  await run("nice", ["qemu-img", ...options], { signal, timeoutMs: convertTimeoutMs });
  await rm(raw.path);
  return { path, firmware: survey.firmware, sizeMib, contentSha256 };
}

/** The identity of an image whose disk is its own: that of the disk, of its tree, and how it starts. */
export function digestOfDisk({ contentSha256, firmware }: OwnDisk, treeDigest: string | undefined): string {
  const identity = { contentSha256, firmware, ...(treeDigest !== undefined && { tree: treeDigest }) };
  return `sha256:${hash("sha256", canonicalJson(identity))}`;
}

async function hashDisk(
  { path, sizeBytes }: { path: string; sizeBytes: number },
  signal: AbortSignal,
): Promise<string> {
  const sum = createHash("sha256").update(`${sizeBytes}\n`);
  await using file = await open(path, "r");
  const block = Buffer.alloc(hashBlockBytes);
  for (let at = 0; at < sizeBytes; at += hashBlockBytes) {
    if (at % (hashBlockBytes * 256) === 0) signal.throwIfAborted();
    const { bytesRead } = await file.read(block, 0, Math.min(hashBlockBytes, sizeBytes - at), at);
    const data = block.subarray(0, bytesRead);
    if (!isZero(data)) sum.update(`${at}\n`).update(data);
  }
  return sum.digest("hex");
}

function machinesOwn(): StrataError {
  return new StrataError("Unsupported", "it is the disk of one virtual machine");
}

function noBootLoader({ problem }: DiskSurvey): StrataError {
  const also = problem ? `; ${problem.message}` : "";
  return new StrataError(
    "Invalid",
    `the disk has no boot loader that a BIOS or UEFI firmware would start, so a VM cannot boot from it as it is${also}`,
  );
}
