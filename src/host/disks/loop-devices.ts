/** Loop devices of this host. */
import { stat } from "node:fs/promises";
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
