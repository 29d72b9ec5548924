/** The header of a disk image in a given format. */
import type { ReadAt } from "../partition-table.ts";
import { type DiskFormat, type DiskHeader, damagedDisk, formatByMagic, refuseDisk } from "./disk-header.ts";
import { readQcow2Header } from "./qcow2-header.ts";
import { readVdiHeader } from "./vdi-header.ts";
import { readVhdxHeader } from "./vhdx-header.ts";
import { readVmdkHeader } from "./vmdk-header.ts";

/**
 * @throws Invalid when the file is not of this format, refers to another file, is encrypted, or is damaged; the message
 * says what was found instead.
 */
export async function readDiskHeader(
  read: ReadAt,
  format: DiskFormat,
  fileBytes: number,
): Promise<DiskHeader> {
  const found = formatByMagic(await read(0, 512));
  const right = format === "raw" ? found === undefined : format === found;
  if (!right && !(format === "vmdk" && found?.includes("VMDK"))) {
    const what = found === undefined ? "nothing marks it as one, so it may be raw" : `it looks like ${found}`;
    throw refuseDisk(`is no ${format} file; ${what}`);
  }
  const { virtualBytes } = await headerOf(read, format, fileBytes);
  if (virtualBytes === 0) throw damagedDisk(format, "has no size");
  return { virtualBytes };
}

async function headerOf(read: ReadAt, format: DiskFormat, fileBytes: number): Promise<DiskHeader> {
  switch (format) {
    case "qcow2":
      return readQcow2Header(read);
    case "vmdk":
      return readVmdkHeader(read);
    case "vdi":
      return readVdiHeader(read);
    case "vhdx":
      return readVhdxHeader(read);
    case "raw":
      return { virtualBytes: fileBytes };
  }
}
