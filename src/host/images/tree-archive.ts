/**
 * An image's root tree as a tar archive whose owners are those of the guest. tar runs in a user namespace with the
 * tree's own shift of ids, so that it sees ids, and the ids within file capabilities, as the guest would. It gets the
 * tree as its working directory, because those above need not let it pass.
 */
import { spawn } from "node:child_process";
import { PassThrough, type Readable } from "node:stream";
import { StrataError } from "../../core/errors.ts";
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
  const child = spawn("nsenter", [...enter, "tar", ...tarArguments, ...placement(options.below), "."], {
    cwd: tree.path,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-2_000);
  });
  const ended = new Promise<number>((resolve) => {
    child.once("error", (error) => {
      complaint += error.message;
      resolve(128);
    });
    child.once("close", (code) => resolve(code ?? 128));
  });
  const archive = new PassThrough();
  child.stdout.pipe(archive, { end: false });
  void ended.then((status) => {
    if (status === 0) archive.end();
    // An archive that merely stopped would be taken for a complete one.
    else archive.destroy(new StrataError("Internal", "cannot read the image's tree", { detail: complaint }));
  });
  try {
    return await use(archive);
  } finally {
    child.kill("SIGKILL");
    archive.destroy();
    await ended;
  }
}
