/** What copies of disks are called inside QEMU, what they are written to, and how they are judged. Pure. */
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";

/** Of one copy: QEMU takes node names of at most 31 characters. `map` and `data` are what descriptor sets are found by. */
export interface CopyNodes {
  /** Of the node that is copied into, and of the job. */
  node: string;
  map: string;
  data: string;
}

export function copyNames(id: Uid, index: number): CopyNodes {
  const node = `copy-${id}-${index}`;
  return { node, map: `${node}-map`, data: `${node}-data` };
}

interface OpenFile {
  /** Number of the descriptor set. */
  set: number;
  direct: boolean;
}

/**
 * As blockdev-add takes it. The base is named null: nothing is read from a copy, and what a header says is never followed.
 * With `data`, `file` is only the map of it.
 */
export function copyTarget({ node }: CopyNodes, file: OpenFile, data?: OpenFile): JsonObject {
  const fileNode = ({ set, direct }: OpenFile): JsonObject => ({
    ...{ driver: "file", filename: `/dev/fdset/${set}`, aio: "threads", discard: "unmap" },
    cache: { direct },
  });
  return {
    ...{ "node-name": node, driver: "qcow2", backing: null, discard: "unmap", file: fileNode(file) },
    ...(data === undefined ? {} : { "data-file": fileNode(data) }),
  };
}

/** All copies of a guest together, in bytes a second of what is taken on the host: a disk of today does several times as much. */
const bytesPerSecond = 256 * 1024 ** 2;
const leastSpeed = 1024 ** 2;

/**
 * The `speed` of each job, so that all end at the same time. A job that copies a whole disk counts what reads as zeros as
 * well, which takes no time: its speed is higher by as much.
 */
export function copySpeeds(
  copies: readonly { sync: "full" | "top"; sizeBytes: number; usedBytes: number }[],
): number[] {
  const total = copies.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  return copies.map(({ sync, sizeBytes, usedBytes }) => {
    const counted = sync === "full" ? sizeBytes : usedBytes;
    return Math.max(leastSpeed, Math.round((bytesPerSecond * counted) / Math.max(1, total)));
  });
}

export interface CopyJob {
  name: string;
  state: "running" | "complete" | "failed";
  /** QEMU's own words. */
  reason: string;
}

export type CopyVerdict = { state: "running" | "complete" } | { state: "failed"; reason: string };

/** `withoutSpace`: the guest is paused because a write of its own found no space, which copying would take still more of. */
export function judgeCopies(jobs: readonly CopyJob[], withoutSpace: boolean): CopyVerdict {
  if (jobs.length === 0) return { state: "failed", reason: "QEMU knows nothing of it any more" };
  const failed = jobs.find(({ state }) => state === "failed");
  if (failed) return { state: "failed", reason: failed.reason };
  if (jobs.every(({ state }) => state === "complete")) return { state: "complete" };
  if (withoutSpace) return { state: "failed", reason: "there is no space left for what the guest writes" };
  return { state: "running" };
}
