/**
 * What lies on a raw disk: the root file system and a separate /boot, what else there is, and which firmware would find
 * a boot loader. The partition table and the file systems are read by code of our own, never by the kernel.
 */
import { StrataError } from "../../core/errors.ts";
import { nameContent } from "./disk-formats/known-content.ts";
import type { Mounted } from "./ext4-archive.ts";
import { Ext4FileSystem } from "./ext4-file-system.ts";
import { type Partition, type ReadAt, readPartitions } from "./partition-table.ts";

export type Firmware = "bios" | "uefi";

export interface DiskSurvey {
  /**
   * The root first, then what belongs below it, and where on the disk each begins. Absent when no root can be read; then
   * `problem` says why.
   */
  fileSystems?: (Mounted & { offsetBytes: number })[];
  problem?: StrataError;
  /** What the disk has besides root, /boot, boot loaders and swap: a tree made of it alone would lack this. */
  elsewhere: string[];
  /** Which firmware starts it; absent when there is no boot loader. */
  firmware?: Firmware;
}

const types = {
  efiSystem: new Set(["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"]),
  biosBoot: new Set(["21686148-6449-6E6F-744E-656564454649"]),
} as const;
const bootCodeBytes = 440;
/** File systems that are opened; opening one may mean reading its journal. */
const maxFileSystems = 16;
const protective = "ee";

interface Part extends Partition {
  read: ReadAt;
  content: string | undefined;
}

/** `open`: of file systems. */
export async function surveyDisk(
  read: ReadAt,
  sizeBytes: number,
  open: (read: ReadAt) => Promise<Ext4FileSystem> = Ext4FileSystem.open,
): Promise<DiskSurvey> {
  const partitions = await readPartitions(read, sizeBytes);
  const whole = { offsetBytes: 0, sizeBytes, type: "" };
  const parts = await Promise.all(
    (partitions.length > 0 ? partitions : [whole]).map((partition) => look(read, partition)),
  );
  const firmware = await findFirmware(read, parts);
  const found = await findFileSystems(parts, open);
  const taken = new Set(found.mounted.map(({ part }) => part));
  const elsewhere = parts
    .filter((part) => !taken.has(part) && !isPlumbing(part))
    .map(({ content }) =>
      content === undefined ? "a partition of an unknown kind" : `a partition with ${content}`,
    );
  const common = { elsewhere, ...(firmware && { firmware }) };
  if (found.mounted.length > 0) {
    const fileSystems = found.mounted.map(({ part, mount }) => ({ ...mount, offsetBytes: part.offsetBytes }));
    return { ...common, fileSystems };
  }
  return { ...common, problem: found.problem ?? noRoot(parts) };
}

async function look(read: ReadAt, partition: Partition): Promise<Part> {
  const { offsetBytes, sizeBytes } = partition;
  const readPart: ReadAt = (offset, count) =>
    read(offsetBytes + offset, Math.max(0, Math.min(count, sizeBytes - offset)));
  return { ...partition, read: readPart, content: await nameContent(readPart) };
}

/** Boot loaders, swap, and what holds nothing. */
function isPlumbing({ type, content }: Part): boolean {
  return types.efiSystem.has(type) || types.biosBoot.has(type) || content === "swap";
}

/**
 * BIOS starts the code in the first sector. On a disk with an EFI system partition, that code alone is no sign (tools
 * that make tables leave some there), so GRUB's partition of its own must be there too, or an MBR be the table.
 */
async function findFirmware(read: ReadAt, parts: readonly Part[]): Promise<Firmware | undefined> {
  const sector = await read(0, 512);
  const isBootSector = sector.length === 512 && sector.readUInt16LE(510) === 0xaa55;
  const code = isBootSector && sector.subarray(0, bootCodeBytes).some((byte) => byte !== 0);
  const gpt = isBootSector && sector.toString("hex", 450, 451) === protective;
  const efi = parts.some(({ type, content }) => types.efiSystem.has(type) && content === "vfat");
  const biosBoot = parts.some(({ type }) => types.biosBoot.has(type));
  if (code && (!efi || !gpt || biosBoot)) return "bios";
  return efi ? "uefi" : undefined;
}

/** The largest file system that looks like a root, then a separate /boot. */
async function findFileSystems(
  parts: readonly Part[],
  open: (read: ReadAt) => Promise<Ext4FileSystem>,
): Promise<{ mounted: { part: Part; mount: Mounted }[]; problem?: StrataError }> {
  const roots: { part: Part; fileSystem: Ext4FileSystem }[] = [];
  const boots: typeof roots = [];
  let problem: StrataError | undefined;
  const candidates = parts.filter(({ content }) => content === "ext");
  if (candidates.length > maxFileSystems) return { mounted: [], problem: tooMany(candidates.length) };
  for (const part of candidates) {
    try {
      const fileSystem = await open(part.read);
      const names = await namesInRoot(fileSystem);
      if (names.has("etc") && (names.has("usr") || names.has("sbin"))) roots.push({ part, fileSystem });
      else if (names.has("vmlinuz")) boots.push({ part, fileSystem });
    } catch (error) {
      if (!(error instanceof StrataError)) throw error;
      problem = error;
    }
  }
  const root = roots.sort((a, b) => b.fileSystem.sizeBytes - a.fileSystem.sizeBytes)[0];
  if (!root) return { mounted: [], ...(problem && { problem }) };
  const mounted = [
    { part: root.part, mount: { fileSystem: root.fileSystem, at: "" } },
    ...boots.slice(0, 1).map(({ part, fileSystem }) => ({ part, mount: { fileSystem, at: "boot" } })),
  ];
  return { mounted };
}

/** Those that tell what it is. */
async function namesInRoot(fileSystem: Ext4FileSystem): Promise<Set<string>> {
  const names = new Set<string>();
  for await (const { name } of fileSystem.entries(await fileSystem.root())) {
    if (name === "etc" || name === "usr" || name === "sbin") names.add(name);
    else if (name.startsWith("vmlinuz")) names.add("vmlinuz");
  }
  return names;
}

function tooMany(found: number): StrataError {
  return new StrataError(
    "Unsupported",
    `the disk has ${found} partitions with ext2, ext3 or ext4; at most ${maxFileSystems} are looked at`,
  );
}

function noRoot(parts: readonly Part[]): StrataError {
  const seen = [...new Set(parts.map(({ content }) => content).filter((name) => name !== undefined))].join(
    ", ",
  );
  return new StrataError(
    "Unsupported",
    `no root file system was found on the disk (partitions: ${parts.length}, with ${seen || "nothing known"}); ext2, ext3 and ext4 are read`,
  );
}
