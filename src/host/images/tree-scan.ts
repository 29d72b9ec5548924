/**
 * Looks at every path of a root tree, in the order of the manifest. Synchronous, because tens of thousands of small
 * files go many times faster that way; tree-scan-worker runs it on a thread of its own.
 */
import { createHash, hash } from "node:crypto";
import {
  type BigIntStats,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from "node:fs";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";

/** One path: what it is, not when it came to be. */
export interface TreeEntry {
  path: string;
  type: "directory" | "file" | "symlink" | "fifo";
  mode: number;
  uid: number;
  gid: number;
  /** Files only, like `sha256`; absent when only the fingerprint was asked for. */
  sizeBytes?: number;
  sha256?: string;
  /** Symbolic links only. */
  target?: string;
}

export interface ScanRequest {
  root: string;
  /** Owners on disk are shifted by this. */
  idBase: number;
  /** Reads and hashes the files. */
  content: boolean;
}

export interface TreeScan {
  /** Sorted by path. Empty when the content was not asked for. */
  entries: TreeEntry[];
  entryCount: number;
  /** Of all files, each inode once. */
  sizeBytes: number;
  /**
   * Hash over inode, size and time of last change of every path. Whoever changes a tree through the kernel, by
   * whatever means, changes it, since nobody can set a ctime.
   */
  fingerprint: string;
}

const chunkBytes = 1024 * 1024;

export function scanTree({ root, idBase, content }: ScanRequest): TreeScan {
  const fingerprint = createHash("sha256");
  const entries: TreeEntry[] = [];
  const hashedInodes = new Map<bigint, string>();
  const chunk = Buffer.allocUnsafe(chunkBytes);
  let sizeBytes = 0;
  let entryCount = 0;

  const visit = (path: string) => {
    const full = join(root, path);
    const stat = lstatSync(full, { bigint: true });
    entryCount++;
    fingerprint.update(`${path}\0${stat.ino}\0${stat.size}\0${stat.mtimeNs}\0${stat.ctimeNs}\n`);
    const type = typeOf(stat, path);
    const linkedBefore = stat.nlink > 1n && hashedInodes.has(stat.ino);
    if (type === "file" && !linkedBefore) sizeBytes += Number(stat.size);
    if (type === "file" && stat.nlink > 1n && !content) hashedInodes.set(stat.ino, "");
    if (content) {
      const entry: TreeEntry = {
        path,
        type,
        mode: Number(stat.mode & 0o7777n),
        uid: Number(stat.uid) - idBase,
        gid: Number(stat.gid) - idBase,
      };
      if (type === "symlink") entry.target = readlinkSync(full);
      if (type === "file") {
        entry.sizeBytes = Number(stat.size);
        entry.sha256 = hashedInodes.get(stat.ino) ?? hashFile(full, Number(stat.size), chunk);
        if (stat.nlink > 1n) hashedInodes.set(stat.ino, entry.sha256);
      }
      entries.push(entry);
    }
    if (type !== "directory") return;
    for (const name of readdirSync(full)) visit(path === "" ? name : `${path}/${name}`);
  };
  visit("");
  entries.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return { entries, entryCount, sizeBytes, fingerprint: fingerprint.digest("hex") };
}

function typeOf(stat: BigIntStats, path: string): TreeEntry["type"] {
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "directory";
  if (stat.isSymbolicLink()) return "symlink";
  if (stat.isFIFO()) return "fifo";
  throw new StrataError("Internal", "an image's tree holds something that does not belong there", {
    detail: path,
  });
}

function hashFile(path: string, sizeBytes: number, chunk: Buffer): string {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (sizeBytes <= chunkBytes) {
      const length = readSync(descriptor, chunk, 0, chunkBytes, 0);
      if (length <= sizeBytes) return hash("sha256", chunk.subarray(0, length));
    }
    const sum = createHash("sha256");
    for (let at = 0; ; ) {
      const length = readSync(descriptor, chunk, 0, chunkBytes, at);
      if (length === 0) return sum.digest("hex");
      sum.update(chunk.subarray(0, length));
      at += length;
    }
  } finally {
    closeSync(descriptor);
  }
}
