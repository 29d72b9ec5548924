/**
 * A root tree's file system as a disk that boots by itself, by BIOS and by UEFI: a GUID partition table with GRUB's
 * partition, an EFI system partition, and the root. Made without loop devices or mounts, and the same, byte for byte,
 * from the same file system.
 */
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../run.ts";
import { makeLoader } from "./grub-loader.ts";
import { guidOf, guidPartitionTable, partitionTypes } from "./guid-partition-table.ts";

export interface BootableDiskRequest {
  /** Of the image: names and ids on the disk are a function of it. */
  digest: string;
  /** The root file system, a qcow2 file of whole MiB. */
  root: { path: string; sizeMib: number; uuid: string };
  /** Paths in the root. */
  kernel: string;
  initrd?: string;
  /** Of the work; must exist. */
  directory: string;
  signal: AbortSignal;
}

const mib = 1024 ** 2;
const sector = 512;
const sectorsPerMib = mib / sector;
const placesMib = { biosBoot: 1, efiSystem: 2, root: 64 } as const;
const timeoutMs = 30 * 60_000;
/** FAT has no other clock here; any fixed time will do. */
const sourceDateEpoch = "1700000000";

/** Makes `DIRECTORY/bootable.raw`, sparse. @throws Unavailable when a tool for it is missing on the host. */
export async function makeBootableDisk(
  request: BootableDiskRequest,
): Promise<{ path: string; sizeMib: number }> {
  const { root, directory, signal, digest, kernel, initrd } = request;
  const path = join(directory, "bootable.raw");
  const sizeMib = placesMib.root + root.sizeMib + 1;
  const coreSector = placesMib.biosBoot * sectorsPerMib;
  const loader = await makeLoader({
    ...{ directory, signal, kernel, coreSector },
    ...(initrd !== undefined && { initrd }),
    rootUuid: root.uuid,
  });
  const partition = (type: keyof typeof partitionTypes, firstMib: number, sizeOfMib: number) => ({
    type: partitionTypes[type],
    guid: guidOf(`${digest} ${type}`),
    name: type,
    firstSector: firstMib * sectorsPerMib,
    sectors: sizeOfMib * sectorsPerMib,
  });
  const partitions = [
    partition("biosBoot", placesMib.biosBoot, placesMib.efiSystem - placesMib.biosBoot),
    partition("efiSystem", placesMib.efiSystem, placesMib.root - placesMib.efiSystem),
    partition("root", placesMib.root, root.sizeMib),
  ];
  const table = guidPartitionTable(
    sizeMib * sectorsPerMib,
    guidOf(`${digest} disk`),
    partitions,
    loader.bootCode,
  );
  {
    await using file = await open(path, "wx", 0o600);
    await file.truncate(sizeMib * mib);
    for (const { offsetBytes, bytes } of table) await file.write(bytes, 0, bytes.length, offsetBytes);
    await file.write(loader.core, 0, loader.core.length, coreSector * sector);
  }
  await placeEfiSystem(request, loader.efi, path);
  await placeRoot(request, path);
  return { path, sizeMib };
}

async function placeEfiSystem(
  { directory, digest, signal }: BootableDiskRequest,
  program: string,
  disk: string,
): Promise<void> {
  const path = join(directory, "efi-system.fat");
  {
    await using file = await open(path, "wx", 0o600);
    await file.truncate((placesMib.root - placesMib.efiSystem) * mib);
  }
  const env = { SOURCE_DATE_EPOCH: sourceDateEpoch, MTOOLS_SKIP_CHECK: "1", MTOOLSRC: "/dev/null" };
  const volumeId = guidOf(`${digest} efi-system`).slice(0, 8);
  await run("mkfs.vfat", ["-F", "32", "-s", "1", "-n", "EFI", "-i", volumeId, "--invariant", path], {
    signal,
    env,
  });
  await run("mmd", ["-i", path, "::/EFI", "::/EFI/BOOT"], { signal, env });
  await run("mcopy", ["-i", path, program, "::/EFI/BOOT/BOOTX64.EFI"], { signal, env });
  await copyInto(
    { path, format: "raw" },
    disk,
    placesMib.efiSystem,
    placesMib.root - placesMib.efiSystem,
    signal,
  );
  await rm(path);
}

async function placeRoot({ root, signal }: BootableDiskRequest, disk: string): Promise<void> {
  await copyInto({ path: root.path, format: "qcow2" }, disk, placesMib.root, root.sizeMib, signal);
}

/** Zeros are left out: the disk reads as zeros there. */
async function copyInto(
  source: { path: string; format: "raw" | "qcow2" },
  disk: string,
  atMib: number,
  sizeMib: number,
  signal: AbortSignal,
): Promise<void> {
  // A comma within a value is written twice.
  const file = (path: string) => `file.driver=file,file.filename=${path.replaceAll(",", ",,")}`;
  const from = `driver=${source.format},${file(source.path)}`;
  const to = `driver=raw,offset=${atMib * mib},size=${sizeMib * mib},${file(disk)}`;
  const options = ["-n", "--target-is-zero", "--image-opts", "--target-image-opts"];
  await run("nice", ["qemu-img", "convert", ...options, from, to], { signal, timeoutMs });
}
