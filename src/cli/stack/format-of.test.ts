import { expect, test } from "vitest";
import { formatOf } from "./expand-stack.ts";

test.each([
  ["root.tar.xz", "tar"],
  ["root.tgz", "tar"],
  ["rootfs", "tar"],
  ["debian-12.qcow2", "qcow2"],
  ["jammy-server-cloudimg-amd64.img", "qcow2"],
  ["disk.raw", "raw"],
  ["disk.raw.xz", "raw"],
  ["Shop.OVA", "ova"],
  ["/images/a.b/shop.vmdk", "vmdk"],
  ["shop.vdi", "vdi"],
  ["shop.vhdx", "vhdx"],
])("%s is a %s by its name", (name, format) => {
  expect(formatOf(name)).toBe(format);
});
