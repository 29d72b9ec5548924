/**
 * Looking at a restored disk in a file of its own: by tools and a reader in user space. The kernel mounts nothing of it but an
 * xfs whose journal only the kernel can replay.
 */
import { open } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import { xfsFault } from "../disks/xfs-check.ts";
import { surveyUnclean } from "../drift/open-unclean.ts";
import { takingTurns } from "../drift/taking-turns.ts";
import { reader } from "../images/disk-import.ts";
import { archiveFileSystems } from "../images/ext4-archive.ts";
import { Ext4FileSystem, type Inode } from "../images/ext4-file-system.ts";
import { run } from "../run.ts";
import { readArchivedFile } from "./archived-file.ts";
import { readXfsFile } from "./xfs-file.ts";

const longMs = 60 * 60_000;
/** As far as symbolic links are not followed, a path is as deep as it is long. */
const maxDepth = 200;

/**
 * Is the file system whole? A journal that a power cut left is replayed first, as a mount would. What is wrong, or undefined.
 */
export async function checkRestored(
  path: string,
  fileSystem: "ext4" | "xfs",
  signal: AbortSignal,
): Promise<string | undefined> {
  const options = { signal, timeoutMs: longMs };
  if (fileSystem === "ext4") {
    const replay = await run("e2fsck", ["-p", path], { ...options, expected: [0, 1, 2, 4, 8] });
    const { status, stdout } = await run("e2fsck", ["-f", "-n", path], {
      ...options,
      expected: [0, 4, 8, 12],
    });
    if (status === 0 && replay.status < 4) return undefined;
    return `e2fsck: ${lastLine(stdout || replay.stdout)}`;
  }
  return xfsFault(path, signal);
}

/**
 * Hands the bytes of one file to `use`. Its file system may have been written to at that moment: the journal is replayed in the
 * file first. @throws NotFound; Invalid for what is no regular file; Unsupported without a file system that is read here.
 */
export async function readRestoredFile(
  disk: { path: string; fileSystem: "ext4" | "xfs" | undefined },
  wanted: string,
  use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  if (disk.fileSystem === "xfs") return await readXfsFile(disk.path, namesOf(wanted), use, signal);
  if (disk.fileSystem !== "ext4") {
    throw new StrataError(
      "Unsupported",
      "single files are read from ext4 and xfs only; restore the backup to a new volume and attach it",
    );
  }
  await run("e2fsck", ["-p", disk.path], { signal, timeoutMs: longMs, expected: [0, 1, 2, 4, 8] });
  await using file = await open(disk.path, "r");
  const read = async (offset: number, length: number) => {
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await file.read(buffer, 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
  const fileSystem = await Ext4FileSystem.open(read);
  const inode = await findPath(fileSystem, wanted);
  await use(fileSystem.content(inode));
}

/**
 * The same of a machine's whole disk: of its root and what belongs below it, as the machine would find it after its next start.
 * @throws as readArchivedFile; Unsupported when no root can be read.
 */
export async function readRestoredRootFile(
  path: string,
  wanted: string,
  use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  await using file = await open(path, "r");
  const { size } = await file.stat();
  const { fileSystems, problem } = await surveyUnclean(takingTurns(reader(file), signal), size);
  if (fileSystems) return await readArchivedFile(archiveFileSystems(fileSystems), wanted, use);
  const why = problem?.message ?? "no root file system was found on it";
  throw new StrataError(
    "Unsupported",
    `single files of this disk cannot be read (${why}); restore the backup to a new instance`,
    { cause: problem },
  );
}

/** @throws Invalid for what leads out. */
function namesOf(wanted: string): string[] {
  const names = wanted.split("/").filter((name) => name !== "" && name !== ".");
  if (names.length <= maxDepth && !names.includes("..")) return names;
  throw noFile(wanted, "is no path inside the volume");
}

/** No symbolic link is followed: it may lead to what is not on this disk. */
async function findPath(fileSystem: Ext4FileSystem, wanted: string): Promise<Inode> {
  const names = namesOf(wanted);
  let inode = await fileSystem.root();
  for (const [index, name] of names.entries()) {
    const so = `/${names.slice(0, index + 1).join("/")}`;
    if (inode.type !== "directory")
      throw noFile(wanted, `/${names.slice(0, index).join("/")} is no directory`);
    const next = await fileSystem.find(inode, name);
    if (!next) throw new StrataError("NotFound", `there is no ${so} in the backup`);
    if (next.type === "symlink") {
      throw noFile(wanted, `${so} is a symbolic link to ${await fileSystem.target(next)}; name that instead`);
    }
    inode = next;
  }
  if (inode.type === "file") return inode;
  if (inode.type !== "directory") throw noFile(wanted, `it is a ${inode.type}`);
  const inside: string[] = [];
  for await (const entry of fileSystem.entries(inode)) {
    if (inside.length === 20) break;
    inside.push(entry.name);
  }
  throw noFile(wanted, `it is a directory, with ${inside.join(", ") || "nothing"} in it`);
}

function noFile(path: string, why: string): StrataError {
  return new StrataError("Invalid", `${path} is not a file that can be read from the backup: ${why}`);
}

function lastLine(text: string): string {
  return (text.trim().split("\n").at(-1) ?? "").slice(0, 300);
}
