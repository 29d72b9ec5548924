/**
 * What a virtual machine's root has become, from its disk: read by code of our own, with the machine held still while it
 * runs. The disk's files are those that were recorded when the guest was made. What can be read before the machine is held
 * still is read before.
 */
import { StrataError } from "../../core/errors.ts";
import { DiskView } from "../../host/drift/disk-view.ts";
import { type Opened, openUnclean } from "../../host/drift/open-unclean.ts";
import {
  type FileSystemRequest,
  readFileSystem,
  readFirstContents,
} from "../../host/drift/read-file-system.ts";
import { takingTurns } from "../../host/drift/taking-turns.ts";
import { surveyDisk } from "../../host/images/disk-survey.ts";
import type { Ext4FileSystem } from "../../host/images/ext4-file-system.ts";
import type { ReadAt } from "../../host/images/partition-table.ts";
import { neutralFstab } from "../../host/images/root-archive.ts";
import type { RootListing } from "../../kinds/drift.ts";
import type { DriftReadout, DriftRequest } from "../driver.ts";
import type { GuestFiles } from "./guest-files.ts";

type HoldStill = (
  use: (signal: AbortSignal) => Promise<RootListing[]>,
) => Promise<{ result: RootListing[]; guest: "frozen" | "paused" | "idle" }>;

/** @throws NotFound; Unsupported for a root that is not read here, with the reason. */
export async function readMachineDrift(
  files: GuestFiles,
  { original }: Pick<DriftRequest, "original">,
  holdStill: HoldStill,
  signal: AbortSignal,
): Promise<DriftReadout> {
  const record = await files.readGuest();
  if (record === undefined) {
    throw new StrataError("NotFound", `the virtual machine ${files.uid} does not exist on this host`);
  }
  const image = record.disk.slice(-1);
  if (record.disk.length < 2) {
    throw new StrataError("Unsupported", "the virtual machine's disk is not based on an image");
  }
  const first = await (async () => {
    await using disk = await DiskView.open(image);
    return await readFirstContents(await rootOf(disk, signal), signal);
  })();
  const { result, guest } = await holdStill(async (signal) => {
    await using disk = await DiskView.open(record.disk);
    const mounted = (await rootOf(disk, signal)).map(({ fileSystem, at, offsetBytes, isReplayed }) => ({
      ...{ fileSystem, at },
      // What is still in the journal was written as well, wherever it belongs.
      isWritten: async (offset: number, length: number) =>
        isReplayed(offset, length) || (await disk.isWritten(offsetBytes + offset, length)),
    }));
    const request: FileSystemRequest = { mounted, first, original, neutral };
    return await readFileSystem(request, signal);
  });
  return { listings: result, reading: guest };
}

/** Images that were imported as disks have their fstab in the form for guests, their disks as it came. */
const neutral = { path: "etc/fstab", change: neutralFstab };

async function rootOf(disk: DiskView, signal: AbortSignal) {
  const replayed = new Map<Ext4FileSystem, Opened["isReplayed"]>();
  const open = async (part: ReadAt) => {
    const { fileSystem, isReplayed } = await openUnclean(part);
    replayed.set(fileSystem, isReplayed);
    return fileSystem;
  };
  const { fileSystems, problem } = await surveyDisk(takingTurns(disk.read, signal), disk.sizeBytes, open);
  // Its end is no problem of the disk's.
  signal.throwIfAborted();
  if (fileSystems) {
    return fileSystems.map((mounted) => ({
      ...mounted,
      isReplayed: replayed.get(mounted.fileSystem) ?? (() => false),
    }));
  }
  throw new StrataError(
    "Unsupported",
    `the virtual machine's disk cannot be read: ${problem?.message ?? ""}`,
    {
      cause: problem,
    },
  );
}
