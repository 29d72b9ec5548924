/**
 * The base of VM disks: one unpartitioned ext4 file system made from the tree without mounting anything, as qcow2.
 * mke2fs sees the tree from inside the user namespace, so the owners are a guest's own again.
 */
import { chown, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";
import { runContained } from "./contained-process.ts";

export interface BaseDiskRequest {
  tree: string;
  /** Of files, and number of paths: for the size of the file system. */
  sizeBytes: number;
  entryCount: number;
  digest: string;
  idBase: number;
  /** Work goes here; `jail` in it is an empty directory. */
  job: { path: string; jail: string };
  signal: AbortSignal;
}

const timeoutMs = 20 * 60_000;
const journalMib = 32;
const roundToMib = 64;
const maxAttempts = 3;

/** Makes `JOB/disk.qcow2`. */
export async function makeBaseDisk(request: BaseDiskRequest): Promise<{ path: string; sizeMib: number }> {
  const { job, signal } = request;
  const raw = join(job.path, "disk.raw");
  const path = join(job.path, "disk.qcow2");
  const sizeMib = await makeFileSystem(request, raw);
  await run("nice", ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], { signal, timeoutMs });
  await rm(raw);
  return { path, sizeMib };
}

/** The file system's UUID: a function of the image, so that the kernel's command line can name it. */
export function rootUuid(digest: string): string {
  const hex = digest.slice("sha256:".length);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}

async function makeFileSystem(request: BaseDiskRequest, raw: string): Promise<number> {
  const { sizeBytes, entryCount, idBase, job, signal, tree } = request;
  // Half a block is lost at the end of each file on average, and each path has an inode and a directory entry.
  const needed = sizeBytes * 1.05 + entryCount * (2048 + 512) + (journalMib + 32) * 1024 ** 2;
  let sizeMib = Math.ceil(needed / 1024 ** 2 / roundToMib) * roundToMib;
  for (let attempt = 1; ; attempt++) {
    await rm(raw, { force: true });
    await using file = await open(raw, "wx", 0o600);
    await file.truncate(sizeMib * 1024 ** 2);
    await chown(raw, idBase, idBase);
    const bytesPerInode = Math.max(
      4096,
      Math.min(16384, Math.floor((sizeMib * 1024 ** 2) / (entryCount * 2))),
    );
    const uuid = rootUuid(request.digest);
    const made = await runContained(
      "mke2fs",
      [
        ...[
          "-q",
          "-F",
          "-t",
          "ext4",
          "-b",
          "4096",
          "-m",
          "0",
          "-i",
          `${bytesPerInode}`,
          "-J",
          `size=${journalMib}`,
        ],
        ...["-U", uuid, "-E", `hash_seed=${uuid},lazy_itable_init=1,lazy_journal_init=1,discard`],
        ...["-d", "/tree", "/disk"],
      ],
      {
        jail: job.jail,
        idBase,
        binds: [
          { from: tree, to: "/tree", writable: false },
          { from: raw, to: "/disk", writable: true },
        ],
        signal,
        timeoutMs,
      },
    );
    if (made.status === 0) return sizeMib;
    const tooSmall = /Could not allocate (block|inode)/.test(made.stderr);
    if (!tooSmall || attempt === maxAttempts) {
      throw new StrataError("Internal", "cannot make a VM disk of the image", {
        detail: made.stderr.slice(-2000),
      });
    }
    sizeMib = Math.ceil((sizeMib * 1.5) / roundToMib) * roundToMib;
  }
}
