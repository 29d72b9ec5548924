import { readFile, stat, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { boundBytes } from "./space-rule.ts";

/**
 * The kernel lets writers of the mounted file system be ahead of the disk by so much and no more. Where it cannot, what is
 * kept free is all there is.
 */
export async function boundUnwritten(tree: string, path: string): Promise<void> {
  const [{ dev }, space] = await Promise.all([stat(tree), statfs(dirname(path))]);
  const settings = `/sys/class/bdi/${deviceName(dev)}`;
  try {
    await readFile(join(settings, "strict_limit"));
    await writeFile(join(settings, "max_bytes"), String(boundBytes(space.blocks * space.bsize)));
    await writeFile(join(settings, "strict_limit"), "1");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "EACCES" && code !== "EINVAL" && code !== "EROFS") throw error;
  }
}

/** MAJOR:MINOR of a device number as stat(2) tells it (makedev(3)). */
function deviceName(dev: number): string {
  const major = (dev >>> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  return `${major}:${minor}`;
}
