/** Can the image's own init run in a Docker container? */
import { posix } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { findFile } from "../../host/images/tree-paths.ts";
import { initCommand } from "./container-spec.ts";
import type { DockerGuest } from "./guest-record.ts";

/**
 * Without an application the image's init is process 1. systemd has to mount file systems, which a Docker container may
 * not; it would hang without a word.
 * @throws Invalid naming what to do.
 */
export async function checkInit({ config, root }: DockerGuest): Promise<void> {
  if (config.command !== undefined || root.type !== "image") return;
  const [init = ""] = initCommand;
  const found = await findFile(root.path, init);
  if (found === undefined) {
    throw new StrataError(
      "Invalid",
      `the image has no ${init}, so a Docker container needs to be told what to run: set spec.application.command`,
    );
  }
  if (posix.basename(found) !== "systemd") return;
  throw new StrataError(
    "Invalid",
    "the image's init is systemd, which cannot run in a Docker container; set spec.application.command, or use the driver lxc",
  );
}
