import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { type CopyJob, copyNames, copySpeeds, copyTarget, judgeCopies } from "./copy-jobs.ts";

const names = copyNames("0123456789abcdef" as Uid, 12);

test("names are short enough for QEMU, of all disks that a machine can have", () => {
  expect(names).toEqual({
    node: "copy-0123456789abcdef-12",
    map: "copy-0123456789abcdef-12-map",
    data: "copy-0123456789abcdef-12-data",
  });
  expect(copyNames("0123456789abcdef" as Uid, 999).node.length).toBeLessThanOrEqual(31);
});

test("a target names no path, and no base", () => {
  const file = (set: number, direct: boolean) => ({
    ...{ driver: "file", filename: `/dev/fdset/${set}`, aio: "threads", discard: "unmap" },
    cache: { direct },
  });
  const overlay = copyTarget(names, { set: 7, direct: true });
  expect(overlay).toEqual({
    ...{ "node-name": names.node, driver: "qcow2", backing: null, discard: "unmap" },
    file: file(7, true),
  });
  const mapped = copyTarget(names, { set: 8, direct: false }, { set: 9, direct: true });
  expect(mapped).toEqual({ ...overlay, file: file(8, false), "data-file": file(9, true) });
});

test("all copies end at the same time, after as long as what is there takes at 256 MiB a second", () => {
  const mib = 1024 ** 2;
  const root = { sync: "top", sizeBytes: 8192 * mib, usedBytes: 256 * mib } as const;
  const thin = { sync: "full", sizeBytes: 10_240 * mib, usedBytes: 512 * mib } as const;
  const [rootSpeed = 0, thinSpeed = 0] = copySpeeds([root, thin]);
  expect(root.usedBytes / rootSpeed).toBeCloseTo(3, 5);
  expect(thin.sizeBytes / thinSpeed).toBeCloseTo(3, 5);
  expect(copySpeeds([{ sync: "full", sizeBytes: 0, usedBytes: 0 }])).toEqual([mib]);
});

const job = (state: CopyJob["state"], reason = ""): CopyJob => ({ name: "copy", state, reason });

test.each<[string, CopyJob[], boolean, object]>([
  ["nothing known", [], false, { state: "failed" }],
  ["one of two complete", [job("complete"), job("running")], false, { state: "running" }],
  ["all complete", [job("complete"), job("complete")], false, { state: "complete" }],
  [
    "one failed",
    [job("running"), job("failed", "Input/output error")],
    false,
    { state: "failed", reason: "Input/output error" },
  ],
  ["no space for the guest", [job("running")], true, { state: "failed" }],
  ["no space, but complete", [job("complete")], true, { state: "complete" }],
])("%s", (_what, jobs, withoutSpace, verdict) => {
  expect(judgeCopies(jobs, withoutSpace)).toMatchObject(verdict);
});
