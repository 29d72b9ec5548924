/** The entries of an image directory: read, added by one rename, removed. */
import { chmod, chown, copyFile, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { assert } from "../../core/errors.ts";
import { run } from "../run.ts";
import { digestOfDisk, type OwnDisk, type UnpackedTree } from "./disk-entry.ts";
import {
  type Description,
  descriptionSchema,
  type EntryPaths,
  entryPaths,
  readJson,
  writeJson,
} from "./entry-files.ts";
import type { StoredImage } from "./image-store.ts";
import type { JobDirectory } from "./job-directory.ts";
import { scanTreeInThread, toManifest } from "./manifest.ts";
import { hashOfFile, noteVerifiedTree } from "./verification.ts";

const digestPattern = /^sha256:([0-9a-f]{64})$/;

/** Directories are named by the digits alone: a colon separates layers in overlayfs options. */
export function entryOf(imageDir: string, digest: string): EntryPaths {
  const digits = digestPattern.exec(digest)?.[1];
  assert(digits !== undefined, "an image digest is sha256: and 64 hexadecimal digits");
  return entryPaths(join(imageDir, digits));
}

export async function describeEntry(imageDir: string, digest: string): Promise<Description | undefined> {
  const description = await readJson(entryOf(imageDir, digest).description, descriptionSchema);
  return description?.digest === digest ? description : undefined;
}

export async function listEntries(imageDir: string): Promise<Description[]> {
  const names = (await readdir(imageDir)).filter((name) => /^[0-9a-f]{64}$/.test(name)).sort();
  const found = await Promise.all(names.map((name) => describeEntry(imageDir, `sha256:${name}`)));
  return found.filter((description) => description !== undefined);
}

export function toStoredImage(description: Description): StoredImage {
  const { digest, sizeBytes, os, types, limitation, remark, dataPaths, firmware, boot } = description;
  const how = firmware ? "firmware" : boot && "direct";
  return { digest, sizeBytes, os, types, limitation, remark, dataPaths, ...(how && { boot: how }) };
}

export interface AddRequest {
  imageDir: string;
  job: JobDirectory;
  /** An entry in the making: its tree is complete, where it has one. */
  draft: EntryPaths;
  tree?: UnpackedTree;
  disk?: OwnDisk;
  limitation: string;
  idBase: number;
  signal: AbortSignal;
}

/** Completes the draft and moves it to its place; content that is there already stays as it is. */
export async function addEntry(request: AddRequest): Promise<Description> {
  const { imageDir, job, draft, tree, disk, limitation, idBase, signal } = request;
  const scan = tree && (await scanTreeInThread({ root: draft.tree, idBase, content: true }, signal));
  const manifest = tree && scan && toManifest(scan.entries, tree.capabilities);
  const digest = disk ? digestOfDisk(disk, manifest?.digest) : manifest?.digest;
  assert(digest !== undefined, "an image has a tree, a disk of its own, or both");
  const existing = await describeEntry(imageDir, digest);
  if (existing) return existing;

  const boot = disk ? undefined : tree?.inspection.boot;
  const description: Description = {
    version: 1,
    digest,
    sizeBytes: scan?.sizeBytes ?? (await stat(disk?.path ?? draft.directory)).size,
    entryCount: scan?.entryCount ?? 0,
    os: tree?.inspection.os ?? "",
    types: disk ? ["vm", ...(tree ? ["container" as const] : [])] : (tree?.inspection.types ?? []),
    limitation,
    remark: tree?.inspection.remark ?? "",
    dataPaths: [...(tree?.inspection.dataPaths ?? [])],
    ...(boot && { boot: await copyBootFiles(boot, draft, signal) }),
    ...(disk && { firmware: disk.firmware }),
    ...(disk && manifest && { treeDigest: manifest.digest }),
  };
  if (manifest && scan) {
    await writeFile(draft.manifest, manifest.text);
    await noteVerifiedTree(draft, scan.fingerprint);
  }
  if (disk) await moveDisk(disk, draft, signal);
  await writeJson(draft.description, description);
  const place = entryOf(imageDir, digest);
  await settle(draft.directory, signal);
  signal.throwIfAborted();
  await moveInto(draft.directory, place.directory, job);
  return description;
}

async function copyBootFiles(
  boot: { kernel: string; initrd?: string },
  draft: EntryPaths,
  signal: AbortSignal,
): Promise<NonNullable<Description["boot"]>> {
  const kernel = await copyOut(boot.kernel, draft.kernel, signal);
  return boot.initrd ? { kernel, initrd: await copyOut(boot.initrd, draft.initrd, signal) } : { kernel };
}

async function moveDisk(disk: OwnDisk, draft: EntryPaths, signal: AbortSignal): Promise<void> {
  const sha256 = await hashOfFile(disk.path, signal);
  await chmod(disk.path, 0o444);
  await rename(disk.path, draft.disk);
  await writeJson(draft.diskDescription, { version: 1, sha256, sizeMib: disk.sizeMib });
}

/** Makes the directories of a draft; whoever unpacks makes the tree. */
export async function startDraft(job: JobDirectory, idBase: number): Promise<EntryPaths> {
  const draft = entryPaths(join(job.path, "entry"));
  await mkdir(draft.directory, { mode: 0o711 });
  await mkdir(draft.guarded);
  await chown(draft.guarded, 0, idBase);
  await chmod(draft.guarded, 0o710);
  return draft;
}

export async function removeEntry(imageDir: string, digest: string, job: JobDirectory): Promise<void> {
  const { directory } = entryOf(imageDir, digest);
  const doomed = join(job.path, "removed");
  try {
    await rename(directory, doomed);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  await rm(doomed, { recursive: true, force: true });
}

/** A damaged entry (without a readable description) at the same place makes room. */
async function moveInto(from: string, to: string, job: JobDirectory): Promise<void> {
  if (await stat(to).catch(() => undefined)) await rename(to, join(job.path, "replaced"));
  await rename(from, to);
}

async function copyOut(from: string, to: string, signal: AbortSignal): Promise<string> {
  await copyFile(from, to);
  await chown(to, 0, 0); // copyFile keeps the owner, here a guest
  await chmod(to, 0o644);
  return hashOfFile(to, signal);
}

/** All data on disk before the rename that makes it count. */
export async function settle(path: string, signal: AbortSignal): Promise<void> {
  await run("sync", ["--file-system", path], { signal, timeoutMs: 10 * 60_000 });
  await run("sync", [dirname(path)], { signal });
}
