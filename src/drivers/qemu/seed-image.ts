import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../host/run.ts";
import type { Seed } from "../driver.ts";

/**
 * Writes a NoCloud seed: an ISO 9660 file system labelled `cidata`, where cloud-init looks for it. Appears at `path` by
 * one rename. `directory` holds the parts while it is made.
 * @see https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
 */
export async function writeSeedImage(
  path: string,
  seed: Seed,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const parts = join(directory, "seed.parts");
  const image = join(directory, "seed.new");
  await rm(parts, { recursive: true, force: true });
  await mkdir(parts, { mode: 0o700 });
  const files = {
    "meta-data": seed.metaData,
    "user-data": seed.userData,
    ...(seed.vendorData === undefined ? {} : { "vendor-data": seed.vendorData }),
    "network-config": seed.networkConfig,
  };
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(parts, name), text, { mode: 0o600 });
  }
  // -r: owned by root and readable inside, whoever made it.
  await run("genisoimage", ["-quiet", "-V", "cidata", "-J", "-r", "-o", image, parts], { signal });
  await rename(image, path);
  await rm(parts, { recursive: true, force: true });
}
