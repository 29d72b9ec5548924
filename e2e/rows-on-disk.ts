import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../src/host/run.ts";
import { wholeSql } from "./sqlite-guest.ts";

/**
 * Rows of the database in a disk that nobody uses, with what its journals and the file system's hold; NaN when it is not sound.
 * The disk stays as it is.
 */
export async function rowsOnDisk(disk: string, scratch: string): Promise<number> {
  const work = await mkdtemp(join(scratch, "disk-"));
  const script = `cp --sparse=always --reflink=auto "$1" "$2/disk"; mkdir "$2/mnt"
    case $(blkid -o value -s TYPE "$2/disk") in
      ext4) e2fsck -fp "$2/disk" >&2 || [ $? = 1 ]; mount -o loop "$2/disk" "$2/mnt";;
      xfs) mount -o loop,nouuid "$2/disk" "$2/mnt";;
    esac
    sqlite3 "$2/mnt/rows.db" "$3"; umount "$2/mnt"`;
  try {
    const { stdout } = await run("sh", ["-euc", script, "sh", disk, work, wholeSql], { timeoutMs: 60_000 });
    return Number(stdout.trim());
  } finally {
    await run("sh", ["-c", 'mountpoint -q "$1" && umount "$1" || true', "sh", join(work, "mnt")]);
    await rm(work, { recursive: true, force: true });
  }
}
