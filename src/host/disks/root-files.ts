/** New files of root disks. */
import { open, rm } from "node:fs/promises";
import type { VmDisk } from "../images/image-store.ts";
import { run } from "../run.ts";

export async function makeOverlay(
  base: VmDisk,
  path: string,
  sizeMib: number,
  signal: AbortSignal,
): Promise<void> {
  await rm(path, { force: true });
  const backing = ["-b", base.path, "-F", base.format];
  await run("qemu-img", ["create", "-q", "-f", "qcow2", ...backing, path, `${sizeMib}M`], { signal });
}

export async function makeFileSystem(path: string, sizeMib: number, signal: AbortSignal): Promise<void> {
  await rm(path, { force: true });
  {
    await using file = await open(path, "wx", 0o600);
    await file.truncate(sizeMib * 1024 ** 2);
  }
  // A new sparse file reads as zeros: tables and journal need no writing, now or later.
  const options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
  await run("mke2fs", ["-q", "-F", "-t", "ext4", "-m", "0", "-E", options, path], { signal });
}
