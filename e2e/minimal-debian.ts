/** A Debian without init, kernel and anything else that a base image for containers does without. Made once a machine. */
import { access, rename } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../src/host/run.ts";
import { testImageDir } from "./test-daemon.ts";

/** Path of a tar. */
export async function minimalDebian(): Promise<string> {
  const path = join(testImageDir, "minimal-debian.tar");
  const there = await access(path).then(
    () => true,
    () => false,
  );
  if (there) return path;
  const partial = `${path}.${process.pid}`;
  const sources = await run("apt-get", ["indextargets", "--format", "$(REPO_URI)", "Label: Debian"]);
  const [mirror = "http://deb.debian.org/debian"] = sources.stdout.split("\n");
  await run("mmdebstrap", ["--variant=minbase", "--mode=root", "--format=tar", "bookworm", partial, mirror], {
    timeoutMs: 300_000,
  });
  await rename(partial, path);
  return path;
}
