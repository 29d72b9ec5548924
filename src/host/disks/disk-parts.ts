/**
 * Disks that were copied together, as all of them were at one moment: `DIR/SNAPSHOT/parts/SNAPSHOT-DISK/`, one directory a
 * disk, laid out as the disk's own. `parts/` appears by one rename when all of it is on disk.
 *
 * The memory of the guest that had them may be a part as well: a file that its driver writes, and what that puts beside it.
 *
 * What this host has mounted of them is frozen, one after the other, and copied when the last is: nothing was
 * written to the first meanwhile, so all of them hold still at the same moment. Most is copied before (copy-ahead.ts), so
 * that what is left is what changed since.
 */
import { mkdir, open, readdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { copyAhead } from "./copy-ahead.ts";
import { copyFile } from "./copy-file.ts";
import { complete, exists, type Stood } from "./data-disks.ts";
import { dropDataFile, findDataFile, type LostPools, placeDataFile, poolOf } from "./data-files.ts";
import { type Freezer, whileFrozen } from "./freezing.ts";
import { mountPoints } from "./mounts.ts";

/** What holds a disk's bytes: a volume, a container's root, a virtual machine's root. A disk has one of them. */
const contentNames = ["data.raw", "volume.img", "disk.qcow2"] as const;
type ContentName = (typeof contentNames)[number];
/** The part that is no disk, and its file. */
const memoryPart = "memory";
const memoryFile = "memory.qcow2";
/** Says that a virtual machine had it, and that it is to be checked. */
export const lentMark = "lent";
/** Where a disk's file system is mounted, if it is. */
const mountNames = ["tree", "volume"] as const;

/** One disk of a snapshot of several. */
export interface DiskPart {
  snapshot: string;
  /** The disk that it is a copy of. */
  disk: string;
}

/** How what is mounted is made to hold still. */
export interface Stillness {
  clock: Clock;
  freezer: Freezer;
  /** False: its writers are held already. */
  isWritable(disk: string): boolean;
  /**
   * Around the freezing and copying alone, with the disks' locks: whoever was held for lack of space goes on meanwhile, so it
   * is short.
   */
  alone(use: () => Promise<void>): Promise<void>;
}

export function partDirectory(top: string, { snapshot, disk }: DiskPart): string {
  return join(top, snapshot, "parts", nameOf(snapshot, disk));
}

/** Also of what was never completed. */
export async function partDirectories(snapshot: string): Promise<string[]> {
  const found: string[] = [];
  for (const parts of ["parts", "parts.new"].map((name) => join(snapshot, name))) {
    const names = await readdir(parts).catch((error) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    found.push(...names.map((name) => join(parts, name)));
  }
  return found;
}

/** What of a snapshot lies in storage pools. Absent is success. @throws Unavailable while a pool is not there. */
export async function dropParts(snapshot: string, lost?: LostPools): Promise<void> {
  for (const part of await partDirectories(snapshot)) await dropDataFile(part, lost);
}

/**
 * Copies `disks` of `top` into `to`, each beside its disk where that is in a storage pool; most of what is written to before
 * its writers are stopped. Existing is success. @throws NotFound for a disk without content.
 */
export async function copyTogether(
  top: string,
  disks: readonly string[],
  to: string,
  { clock, freezer, isWritable, alone }: Stillness,
  signal: AbortSignal,
): Promise<Stood> {
  const stood = { frozen: false, stillMs: 0 };
  if (await exists(join(top, to, "parts"))) return stood;
  const copies = await planParts(top, disks, to);
  const written = await mountsOf(top, disks.filter(isWritable));
  await using ahead = await copyAhead(copies, written, signal);
  await alone(async () => {
    const mounts = await mountsOf(top, disks);
    const copyAll = async () => {
      for (const left of await ahead.complete(copies, signal)) await copyFile(left.from, left.to, signal);
    };
    const copyStill = mounts.reduceRight<() => Promise<void>>(
      (inner, mount) => () => whileFrozen(freezer, mount, signal, inner),
      copyAll,
    );
    const begun = clock.monotonicMs();
    await copyStill();
    stood.stillMs = Math.round(clock.monotonicMs() - begun);
    stood.frozen = mounts.length > 0;
  });
  await finishParts(join(top, to));
  return stood;
}

/** Where the parts of a snapshot are to be copied, in a directory that has no name of a complete one yet. @throws NotFound. */
export async function planParts(
  top: string,
  disks: readonly string[],
  to: string,
): Promise<{ from: string; to: string }[]> {
  const next = join(top, to, "parts.new");
  await dropParts(join(top, to));
  await rm(next, { recursive: true, force: true });
  await mkdir(next, { recursive: true, mode: 0o700 });
  const copies: { from: string; to: string }[] = [];
  for (const disk of disks) {
    const part = join(next, nameOf(to, disk));
    await mkdir(part, { mode: 0o700 });
    copies.push(await planCopy(join(top, disk), part));
  }
  return copies;
}

/** Makes the directory that memory is kept in, after planParts. */
export async function planMemory(top: string, to: string): Promise<string> {
  const part = join(top, to, "parts.new", nameOf(to, memoryPart));
  await mkdir(part, { mode: 0o700 });
  return part;
}

/** The file of a snapshot's memory: what is there, or where it is to be. @throws NotFound when it was not planned or is not there. */
export async function findMemory(snapshot: string): Promise<string> {
  const part = nameOf(snapshot, memoryPart);
  const path = join(snapshot, "parts", part, memoryFile);
  if (await exists(path)) return path;
  const planned = join(snapshot, "parts.new", part);
  if (await exists(planned)) return join(planned, memoryFile);
  throw new StrataError("NotFound", "there is no memory in the snapshot");
}

/** Once all of them are copied. May be repeated. @throws NotFound when nothing was planned. */
export async function finishParts(snapshot: string): Promise<void> {
  const parts = join(snapshot, "parts");
  if (await exists(parts)) return;
  const next = `${parts}.new`;
  if (!(await exists(next))) throw new StrataError("NotFound", "nothing of the snapshot is here");
  for (const name of await readdir(next)) {
    const part = join(next, name);
    if (name === nameOf(snapshot, memoryPart)) {
      await finishMemory(part);
      continue;
    }
    await sync(await fileOf(part, await contentOf(part)));
    await sync(part);
  }
  await rename(next, parts);
}

/**
 * Puts disks back to what they were: all copies are made first and then renamed, so that a failure leaves everything as it
 * was. Nothing may use the disks. May be repeated; an interrupted call is completed by the next.
 */
export async function restoreTogether(
  moves: readonly { from: string; to: string }[],
  signal: AbortSignal,
): Promise<void> {
  const ready: { path: string; lent: boolean; directory: string }[] = [];
  for (const { from, to } of moves) {
    const name = await contentOf(from);
    const source = await fileOf(from, name);
    const path = await fileOf(to, name);
    await rm(`${path}.new`, { force: true });
    await copyFile(source, `${path}.new`, signal);
    await sync(`${path}.new`);
    ready.push({ path, lent: await exists(join(from, lentMark)), directory: to });
  }
  signal.throwIfAborted();
  for (const { path, lent, directory } of ready) {
    // Whenever this is interrupted, what a virtual machine had is marked.
    if (lent) await writeFile(join(directory, lentMark), "");
    await complete(`${path}.new`, path);
    if (!lent) await rm(join(directory, lentMark), { force: true });
  }
}

/** One that could not be kept leaves nothing. */
async function finishMemory(part: string): Promise<void> {
  if (!(await exists(join(part, memoryFile)))) return rm(part, { recursive: true });
  for (const name of await readdir(part)) await sync(join(part, name));
  await sync(part);
}

/** Unique beyond its snapshot: in a storage pool, files of all volumes and snapshots lie beside each other. */
function nameOf(snapshot: string, disk: string): string {
  return `${basename(snapshot)}-${disk}`;
}

async function planCopy(disk: string, part: string): Promise<{ from: string; to: string }> {
  const name = await contentOf(disk);
  const from = await fileOf(disk, name);
  if (await exists(join(disk, lentMark))) await writeFile(join(part, lentMark), "");
  const to = name === "data.raw" ? await placeDataFile(part, await poolOf(from)) : join(part, name);
  await rm(to, { force: true });
  return { from, to };
}

async function contentOf(directory: string): Promise<ContentName> {
  for (const name of contentNames) if (await exists(join(directory, name))) return name;
  throw new StrataError(
    "NotFound",
    "there is nothing on the disk yet: its instance has not started with it",
    {
      detail: directory,
    },
  );
}

function fileOf(directory: string, name: ContentName): Promise<string> {
  return name === "data.raw" ? findDataFile(directory) : Promise.resolve(join(directory, name));
}

async function mountsOf(top: string, disks: readonly string[]): Promise<string[]> {
  const mounted = await mountPoints();
  return disks
    .flatMap((disk) => mountNames.map((name) => join(top, disk, name)))
    .filter((path) => mounted.has(path));
}

async function sync(path: string): Promise<void> {
  await using file = await open(path, "r");
  await file.sync();
}
