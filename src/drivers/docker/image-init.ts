/** What a container runs that was told nothing: the image's application, or its own init if that can. */
import { posix } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { readApplication } from "../../host/images/dockerfile/application.ts";
import { findFile } from "../../host/images/tree-paths.ts";
import { initCommand } from "./container-spec.ts";
import type { DockerGuest } from "./guest-record.ts";

/** The guest with the application of its image, where it has none of its own and the image was made of a Dockerfile. */
export async function withImageApplication(guest: DockerGuest): Promise<DockerGuest> {
  const { config, root } = guest;
  if (config.command !== undefined || root.type !== "image") return guest;
  const application = await readApplication(root.path);
  if (application === undefined) return guest;
  const { command, workingDirectory, user } = application;
  const variables = application.environment.map((variable): [string, string] => {
    const at = variable.indexOf("=");
    return at < 0 ? [variable, ""] : [variable.slice(0, at), variable.slice(at + 1)];
  });
  const environment = { ...Object.fromEntries(variables), ...config.environment };
  return { ...guest, config: { ...config, command, environment, workingDirectory, ...(user && { user }) } };
}

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
