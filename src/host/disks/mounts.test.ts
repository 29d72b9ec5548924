import { expect, it } from "vitest";
import { mountPoints, parseMountPoints } from "./mounts.ts";

it("reads mount points, with their escapes", () => {
  const text = [
    "22 28 0:21 / /sys rw,relatime shared:7 - sysfs sysfs rw",
    "60 28 7:0 / /srv/with\\040space/a\\011tab rw - ext4 /dev/loop0 rw",
    "61 28 0:50 / /srv/\\303\\274 rw - overlay overlay rw,lowerdir=/a",
    "",
  ].join("\n");
  expect([...parseMountPoints(text)]).toEqual(["/sys", "/srv/with space/a\ttab", "/srv/ü"]);
});

it("finds the root of this process", async () => {
  expect((await mountPoints()).has("/")).toBe(true);
});
