/** Loop devices of this host. */
import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { run } from "../run.ts";

/** The loop device that holds the file, whoever made it. */
export async function loopOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  const args = ["--associated", path, "--noheadings", "--output", "NAME"];
  const { stdout } = await run("losetup", args, { signal });
  return stdout.trim().split("\n")[0] || undefined;
}

/** MAJOR:MINOR, of a device's path. */
export async function deviceNumber(path: string): Promise<string> {
  const { rdev } = await stat(path);
  // As glibc packs them (gnu_dev_major(3)).
  return `${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
}

/**
 * A number that the kernel changes whenever the device gets or loses its file (`diskseq`, since Linux 5.15), so what is written
 * to the file past the device shows. Undefined where it tells none.
 */
export async function attachmentOf(loop: string, blockDirectory = "/sys/block"): Promise<string | undefined> {
  try {
    return (await readFile(join(blockDirectory, basename(loop), "diskseq"), "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
