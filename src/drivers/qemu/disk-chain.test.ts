import { describe, expect, it } from "vitest";
import { parseDiskChain, readDiskChain } from "./disk-chain.ts";

const disk = { path: "/state/disks/a/disk.qcow2", format: "qcow2" } as const;

describe("parseDiskChain", () => {
  it("names the base by its path, relative ones from the disk", () => {
    const output = JSON.stringify([
      {
        filename: disk.path,
        format: "qcow2",
        "full-backing-filename": "/images/x/disk.qcow2",
        "virtual-size": 1,
      },
      { filename: "../../base.raw", format: "raw" },
    ]);
    expect(parseDiskChain(disk, output)).toEqual([disk, { path: "/state/base.raw", format: "raw" }]);
  });

  it.each([
    [
      "another format",
      [
        { filename: disk.path, format: "qcow2" },
        { filename: "nbd://x", format: "luks" },
      ],
    ],
    ["too many levels", Array.from({ length: 9 }, () => ({ filename: disk.path, format: "qcow2" }))],
  ])("refuses %s", (_name, output) => {
    expect(() => parseDiskChain(disk, JSON.stringify(output))).toThrow(/no disk of ours/);
  });
});

it("never looks into a raw disk: what is in there is the guest's", async () => {
  const raw = { path: "/absent", format: "raw" } as const;
  expect(await readDiskChain(raw, new AbortController().signal)).toEqual([raw]);
});
