import { expect, test } from "vitest";
import { usualChange } from "./usual-changes.ts";

test.each([
  "etc/machine-id",
  "etc/ssh/ssh_host_ed25519_key.pub",
  "etc/resolv.conf",
  "var/lib/cloud/instance",
  "var/log/journal/0123/system.journal",
  "tmp/x",
  "run/user/0",
  ".dockerenv",
  "home/me/.bash_history",
  "var/lib/systemd/timers/stamp-apt-daily.timer",
  "lost+found",
  "etc/shadow-",
])("%s is written by every guest", (path) => {
  expect(usualChange(path, "added")).toBeTypeOf("string");
  expect(usualChange(path, "changed")).toBeTypeOf("string");
});

test.each([
  "etc/ssh/sshd_config",
  "etc/ssh",
  "etc/passwd",
  "etc/passwd-/x",
  "etc/shells-",
  "etc/machine-id.bak",
  "etc/motd",
  "var/lib/clouds",
  "srv/tmp/x",
  "root/.ssh/authorized_keys",
  "home/me/deep/.bash_history",
  "usr/bin/run/x",
  "etc/hostnames",
  "xdockerenv",
  "var/lib/mysql/data\ntmp/x",
])("%s is somebody's doing", (path) => {
  expect(usualChange(path, "added")).toBeUndefined();
  expect(usualChange(path, "changed")).toBeUndefined();
});

test("what is gone is usual only for what is made again", () => {
  expect(usualChange("tmp/x", "removed")).toBe("temporary files");
  expect(usualChange("etc/ssh/ssh_host_rsa_key", "removed")).toBeTypeOf("string");
  expect(usualChange("etc/resolv.conf", "removed")).toBeUndefined();
  expect(usualChange("var/lib/dhcp/leases", "removed")).toBeUndefined();
});
