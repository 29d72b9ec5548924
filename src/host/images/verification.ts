/**
 * Entries are checked against their digest before use. Reading a whole tree takes seconds, so what was found right is
 * noted together with the boot of the host and the inodes' times of change: within one boot nothing on a file system
 * can change without its ctime changing, which is cheap to look at; after a reboot (power may have failed) everything
 * is read again.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { type EntryPaths, readJson, writeJson } from "./entry-files.ts";
import { capabilitiesOf, scanTreeInThread, toManifest } from "./manifest.ts";

const stampSchema = z.object({
  bootId: z.string(),
  tree: z.string().optional(),
  /** Per file: inode, size and times. */
  files: z.record(z.string(), z.string()),
});
type Stamp = z.infer<typeof stampSchema>;

/** @throws Unavailable when the tree is not what the digest says. */
export async function verifyTree(
  paths: EntryPaths,
  digest: string,
  idBase: number,
  signal: AbortSignal,
): Promise<void> {
  const stamp = await readStamp(paths);
  const request = { root: paths.tree, idBase };
  if (stamp.tree !== undefined) {
    const quick = await scanTreeInThread({ ...request, content: false }, signal);
    if (quick.fingerprint === stamp.tree) return;
  }
  const scan = await scanTreeInThread({ ...request, content: true }, signal);
  const capabilities = capabilitiesOf(await readFile(paths.manifest, "utf8"));
  if (toManifest(scan.entries, capabilities).digest !== digest) throw damaged(digest, "its files");
  await writeJson(paths.verified, { ...(await readStamp(paths)), tree: scan.fingerprint });
}

/** @throws Unavailable when the file is not what was made. */
export async function verifyFile(
  paths: EntryPaths,
  file: string,
  sha256: string,
  digest: string,
  signal: AbortSignal,
): Promise<void> {
  const name = basename(file);
  const state = await stateOf(file);
  const stamp = await readStamp(paths);
  if (state !== undefined && stamp.files[name] === state) return;
  if (state === undefined || (await hashOfFile(file, signal)) !== sha256) throw damaged(digest, name);
  const { files, ...rest } = await readStamp(paths);
  await writeJson(paths.verified, { ...rest, files: { ...files, [name]: state } });
}

/** Notes that the tree has just been read and found right. */
export async function noteVerifiedTree(paths: EntryPaths, fingerprint: string): Promise<void> {
  await writeJson(paths.verified, { ...(await readStamp(paths)), tree: fingerprint });
}

export async function hashOfFile(path: string, signal: AbortSignal): Promise<string> {
  const sum = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) sum.update(chunk);
  return sum.digest("hex");
}

async function stateOf(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found && `${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`;
}

async function readStamp(paths: EntryPaths): Promise<Stamp> {
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const stamp = await readJson(paths.verified, stampSchema);
  return stamp?.bootId === bootId ? stamp : { bootId, files: {} };
}

export function damaged(digest: string, what: string): StrataError {
  return new StrataError(
    "Unavailable",
    `the image ${digest.slice(0, 19)} is damaged on this host (${what} changed since it was made); delete it and make it again`,
  );
}
