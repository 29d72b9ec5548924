/**
 * One file of an xfs in a file. Only the kernel reads xfs, so it is mounted, once it was found whole: without devices, programs and
 * set-uid, in mounts of its own, which end with the process that reads.
 */
import { dirname } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { xfsFault } from "../disks/xfs-check.ts";
import { withOutput } from "../with-output.ts";

const statuses = { cannotMount: 32, link: 40, absent: 41, noFile: 42 } as const;

/** Of each step of the path it is looked at what it is: no link is followed. */
const script = `
disk=$1 at=$2; shift 2
mount -t xfs -o loop,nouuid,nosuid,nodev,noexec "$disk" "$at" || exit ${statuses.cannotMount}
for name; do
  at=$at/$name
  [ -L "$at" ] && exit ${statuses.link}
  [ -e "$at" ] || exit ${statuses.absent}
done
[ -f "$at" ] || exit ${statuses.noFile}
exec cat -- "$at"
`;

/**
 * Hands its bytes to `use`. `names`: of the path, without `..`.
 * @throws NotFound; Invalid for what is no regular file; Internal when the file system is damaged.
 */
export async function readXfsFile(
  disk: string,
  names: readonly string[],
  use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const fault = await xfsFault(disk, signal);
  if (fault !== undefined)
    throw new StrataError("Internal", `the file system in the backup is damaged: ${fault}`);
  const path = `/${names.join("/")}`;
  const args = [
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-uc",
    script,
    "sh",
    disk,
    dirname(disk),
    ...names,
  ];
  const explain = (status: number, detail: string) => whyNot(path, status, detail);
  await withOutput("unshare", args, { signal, explain }, use);
}

function whyNot(path: string, status: number, detail: string): StrataError {
  switch (status) {
    case statuses.absent:
      return new StrataError("NotFound", `there is no ${path} in the backup`);
    case statuses.link:
      return new StrataError(
        "Invalid",
        `${path} is not a file that can be read from the backup: a part of it is a symbolic link`,
      );
    case statuses.noFile:
      return new StrataError("Invalid", `${path} is not a file that can be read from the backup`);
    default:
      return new StrataError("Internal", `${path} cannot be read from the backup`, { detail });
  }
}
