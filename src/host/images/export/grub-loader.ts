/**
 * GRUB for a disk, made without a device to install it on: what grub-install would write, from Debian's packages
 * grub-common, grub-pc-bin and grub-efi-amd64-bin. It holds its configuration in itself, so the root file system stays
 * exactly as it is, and starts the kernel that the root's own links name, so that the guest may update it.
 */
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../../core/errors.ts";
import { run } from "../../run.ts";

export interface Loader {
  /** For the first sector: 440 bytes. */
  bootCode: Buffer;
  /** For the BIOS boot partition, from its beginning. */
  core: Buffer;
  /** File of the program for UEFI. */
  efi: string;
}

export interface LoaderRequest {
  /** Of the work; files are made in it. */
  directory: string;
  kernel: string;
  initrd?: string;
  /** UUID of the root file system. */
  rootUuid: string;
  /** Where the core begins on the disk. */
  coreSector: number;
  signal: AbortSignal;
}

const biosDirectory = "/usr/lib/grub/i386-pc";
const modules = "part_gpt ext2 search search_fs_uuid linux serial terminal gzio".split(" ");
const sector = 512;
/** In the first sector: the core's place on the disk, and a check of the drive's number that old BIOSes need. */
const bootSector = { coreAt: 0x5c, driveCheck: 0x66 } as const;
/** In the core's first sector: where the rest of it begins. */
const restOfCore = 0x1f4;

/** The configuration as GRUB's rescue parser reads it: one command a line, no words that need quotes. */
export function loaderConfiguration({
  kernel,
  initrd,
  rootUuid,
}: Omit<LoaderRequest, "directory" | "coreSector" | "signal">): string {
  for (const path of [kernel, initrd ?? "/"]) {
    if (/^\/[A-Za-z0-9._+~/-]*$/.test(path)) continue;
    throw new StrataError(
      "Unsupported",
      `the image's kernel has a name that GRUB cannot be told: ${JSON.stringify(path)}`,
    );
  }
  return [
    "serial --unit=0 --speed=115200",
    "terminal_input console serial",
    "terminal_output console serial",
    `search --no-floppy --fs-uuid --set=root ${rootUuid}`,
    `linux ${kernel} root=UUID=${rootUuid} rw console=tty0 console=ttyS0,115200`,
    ...(initrd === undefined ? [] : [`initrd ${initrd}`]),
    "boot",
    "",
  ].join("\n");
}

/** @throws Unavailable when GRUB's packages are missing. */
export async function makeLoader(request: LoaderRequest): Promise<Loader> {
  const { directory, signal, coreSector } = request;
  const configuration = join(directory, "loader.cfg");
  await writeFile(configuration, loaderConfiguration(request));
  const make = async (format: string, name: string, more: readonly string[]) => {
    const path = join(directory, name);
    const options = ["-O", format, "-o", path, "-p", "/boot/grub", "-c", configuration];
    await run("grub-mkimage", [...options, ...more, ...modules], { signal }).catch(explainMissing);
    return path;
  };
  const core = placeCore(await readFile(await make("i386-pc", "core.img", ["biosdisk"])), coreSector);
  const bootCode = Buffer.alloc(440);
  await using file = await open(join(biosDirectory, "boot.img"), "r");
  await file.read(bootCode, 0, bootCode.length, 0);
  bootCode.writeBigUInt64LE(BigInt(coreSector), bootSector.coreAt);
  bootCode.writeUInt16LE(0x9090, bootSector.driveCheck); // no check, as grub-bios-setup does for hard disks
  return { bootCode, core, efi: await make("x86_64-efi", "bootx64.efi", ["fat"]) };
}

function placeCore(core: Buffer, coreSector: number): Buffer {
  const whole = Buffer.concat([core, Buffer.alloc((sector - (core.length % sector)) % sector)]);
  whole.writeBigUInt64LE(BigInt(coreSector + 1), restOfCore);
  return whole;
}

function explainMissing(error: unknown): never {
  const detail = error instanceof StrataError ? (error.detail ?? "") : "";
  if (/grub-mkimage is not installed|No such file/.test(`${error} ${detail}`)) {
    throw new StrataError(
      "Unavailable",
      "a disk that boots by itself needs GRUB; install grub-common, grub-pc-bin and grub-efi-amd64-bin on the host",
      { cause: error },
    );
  }
  throw error;
}
