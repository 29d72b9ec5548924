/**
 * Roots in snapshots, read as archives. A container's is mounted read-only; a virtual machine's disk is never mounted, nor
 * opened by a tool that follows what its header says: its header may be the work of whoever took QEMU over.
 */
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { DiskView } from "../drift/disk-view.ts";
import { openUnclean } from "../drift/open-unclean.ts";
import { takingTurns } from "../drift/taking-turns.ts";
import { surveyDisk } from "../images/disk-survey.ts";
import { archiveFileSystems } from "../images/ext4-archive.ts";
import type { ReadAt } from "../images/partition-table.ts";
import { withTreeArchive } from "../images/tree-archive.ts";
import { mountFileReadOnly, mountLayers, unmount } from "./mounts.ts";

type Use<Result> = (archive: AsyncIterable<Uint8Array>) => Promise<Result>;

/** `directory`: of the part, with its `volume.img`; `lower`: the image's tree. */
export async function readContainerRoot<Result>(
  directory: string,
  lower: { path: string; idBase: number },
  use: Use<Result>,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): Promise<Result> {
  const volume = join(directory, "volume");
  const merged = join(directory, "merged");
  const release = async () => {
    for (const path of [merged, volume]) await unmount(path, clock, signal);
  };
  await release();
  for (const path of [volume, merged]) await mkdir(path, { recursive: true, mode: 0o700 });
  try {
    await mountFileReadOnly(join(directory, "volume.img"), volume, signal);
    await mountLayers([join(volume, "upper"), lower.path], merged, signal);
    return await withTreeArchive({ path: merged, idBase: lower.idBase }, use);
  } finally {
    await release();
  }
}

/** `path`: the machine's own file, over `base`. @throws Unsupported for what is not read here. */
export async function readMachineRoot<Result>(path: string, base: string, use: Use<Result>): Promise<Result> {
  await using disk = await DiskView.open([
    { path, format: "qcow2" },
    { path: base, format: "qcow2" },
  ]);
  const openAny = async (part: ReadAt) => (await openUnclean(part)).fileSystem;
  const { fileSystems, problem } = await surveyDisk(takingTurns(disk.read), disk.sizeBytes, openAny);
  if (fileSystems) return await use(archiveFileSystems(fileSystems));
  const why = problem?.message ?? "no root file system was found on it";
  throw new StrataError("Unsupported", `the virtual machine's disk cannot be read: ${why}`, {
    cause: problem,
  });
}

const incompatibleExternalData = 4n;

/**
 * The file is nothing but an overlay over `base`, by its own header: then tools may open it.
 * @throws Unavailable when it names any other file.
 */
export async function requireOverlay(path: string, base: string): Promise<void> {
  const header = Buffer.alloc(64 * 1024);
  {
    await using file = await open(path, "r");
    await file.read(header, 0, header.length, 0);
  }
  const version = header.readUInt32BE(4);
  const at = Number(header.readBigUInt64BE(8));
  const length = header.readUInt32BE(16);
  const features = version === 3 ? header.readBigUInt64BE(72) : 0n;
  const isQcow2 = header.readUInt32BE(0) === 0x514649fb && (version === 2 || version === 3);
  const named = at + length <= header.length ? header.toString("utf8", at, at + length) : "";
  if (isQcow2 && named === base && (features & incompatibleExternalData) === 0n) return;
  throw new StrataError("Unavailable", "the virtual machine's disk is not based on its image any more", {
    detail: `${path}: based on ${JSON.stringify(named.slice(0, 200))}, expected ${base}`,
  });
}
