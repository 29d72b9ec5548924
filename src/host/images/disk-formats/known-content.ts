/** Names what a partition holds by the marks that file systems and the like leave at known places. */
import type { ReadAt } from "../partition-table.ts";

const marks: readonly [name: string, offset: number, bytes: string][] = [
  ["ext", 1024 + 56, "\x53\xef"],
  ["xfs", 0, "XFSB"],
  ["btrfs", 64 * 1024 + 64, "_BHRfS_M"],
  ["ntfs", 3, "NTFS    "],
  ["vfat", 82, "FAT32   "],
  ["vfat", 54, "FAT1"],
  ["LVM", 512, "LABELONE"],
  ["LVM", 0, "LABELONE"],
  ["LUKS", 0, "LUKS\xba\xbe"],
  ["swap", 4096 - 10, "SWAPSPACE2"],
  ["squashfs", 0, "hsqs"],
  ["erofs", 1024, "\xe2\xe1\xf5\xe0"],
  ["f2fs", 1024, "\x10\x20\xf5\xf2"],
  ["jfs", 32 * 1024, "JFS1"],
  ["reiserfs", 64 * 1024 + 52, "ReIsEr"],
  ["software RAID", 4096, "\xfc\x4e\x2b\xa9"],
  ["iso9660", 32 * 1024 + 1, "CD001"],
];

/** The name, or undefined when nothing known is there. */
export async function nameContent(read: ReadAt): Promise<string | undefined> {
  for (const [name, offset, bytes] of marks) {
    if ((await read(offset, bytes.length)).toString("latin1") === bytes) return name;
  }
  return undefined;
}
