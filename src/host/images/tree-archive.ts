/**
 * An image's root tree as a tar archive whose owners are those of the guest. tar runs in a user namespace with the
 * tree's own shift of ids, so that it sees ids, and the ids within file capabilities, as the guest would. It gets the
 * tree as its working directory, because those above need not let it pass.
 */
import type { Readable } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import { withOutput } from "../with-output.ts";
import { holdUserNamespace } from "./contained-process.ts";

const tarArguments = [
  "--create",
  "--file=-",
  // Without the times of access and change, which differ from host to host.
  "--format=posix",
  "--pax-option=delete=atime,delete=ctime",
  "--numeric-owner",
  "--sort=name",
  "--xattrs",
  "--xattrs-include=security.capability",
];

/** Names and targets of hard links get the directory in front; those of symbolic links stay what they are. */
function placement(below: string | undefined): string[] {
  return below === undefined ? [] : [`--transform=flags=rhS;s,^\\.,${below},`];
}

/**
 * Calls `use` with the archive; it is complete when `use` has read it to its end, and fails (the stream and the call)
 * when it cannot be made. Nothing of it goes on after the call. `below`: a plain name of a directory that it is put into.
 */
export async function withTreeArchive<T>(
  tree: { path: string; idBase: number },
  use: (archive: Readable) => Promise<T>,
  options: { below?: string } = {},
): Promise<T> {
  await using namespace = await holdUserNamespace(tree.idBase);
  const enter = [`--user=/proc/${namespace.pid}/ns/user`, "--setuid", "0", "--setgid", "0", "--"];
  const archiving = {
    cwd: tree.path,
    explain: (_status: number, detail: string) =>
      new StrataError("Internal", "cannot read the image's tree", { detail }),
  };
  const args = [...enter, "tar", ...tarArguments, ...placement(options.below), "."];
  return await withOutput("nsenter", args, archiving, use);
}
