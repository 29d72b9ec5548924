import { expect, test } from "vitest";
import { mountPointsOf } from "./mounted-disks.ts";

// What qemu-ga 7.2 answers.
const answer = [
  {
    name: "vda",
    mountpoint: "/",
    type: "ext4",
    disk: [{ serial: "root", "bus-type": "virtio", dev: "/dev/vda" }],
  },
  {
    name: "sda",
    mountpoint: "/srv/data",
    type: "ext4",
    disk: [{ serial: "0QEMU_QEMU_HARDDISK_0123456789abcdef", "bus-type": "scsi", dev: "/dev/sda" }],
  },
  { name: "tmpfs", mountpoint: "/run", type: "tmpfs", disk: [] },
];

test("a disk's mount points are found by its serial number", () => {
  expect(mountPointsOf(answer, "0123456789abcdef")).toEqual(["/srv/data"]);
  expect(mountPointsOf(answer, "fedcba9876543210")).toEqual([]);
});

test("what an agent makes up is no mount point", () => {
  for (const nonsense of [
    null,
    {},
    [1, null, { mountpoint: 3 }, { mountpoint: "/x" }, { mountpoint: "/x", disk: [4] }],
  ]) {
    expect(mountPointsOf(nonsense, "0123456789abcdef")).toEqual([]);
  }
});
