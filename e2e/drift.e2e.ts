/**
 * What differs from the image, and the way back to it, through a whole daemon and the command line: guests of one image
 * under several drivers.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DriftReport } from "../src/kinds/drift.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { TestDaemon } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  const tiny = await tinyImage();
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", tiny]);
});
afterAll(async () => {
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
});

const drift = (name: string, ...options: string[]) =>
  daemon.json<DriftReport>(["instance", "drift", name, ...options]);
const changes = async (name: string) =>
  (await drift(name)).differences.map(({ change, path, aspects }) => [change, path, ...aspects].join(" "));
const inside = (name: string, script: string) => daemon.ok(["exec", name, "--", "sh", "-c", script]);

test("a container is as its image; then exactly what was done inside is found, running and stopped", async () => {
  await daemon.ok(["launch", "tiny", "box", "--type", "container", "--disk", "256MiB"]);
  expect(await drift("box")).toMatchObject({ reading: "running", differences: [] });
  await inside("box", "echo 'me::0:0:me:/:/bin/sh' >> /etc/passwd");
  expect(await changes("box")).toEqual(["changed /etc/passwd content"]);

  await inside(
    "box",
    "rm -r /etc/profile /lib/modules; mkdir -p /srv/www; echo hi > /srv/www/index; chmod 600 /etc/group; " +
      "cp /etc/udhcpc /x && mv /x /etc/udhcpc; chown 7 /sbin; ln -sf busybox /bin/mine; echo x > /tmp/x",
  );
  const found = await changes("box");
  expect(found.filter((line) => !line.includes("/lib/modules/"))).toEqual([
    "added /bin/mine",
    "changed /etc/group mode",
    "changed /etc/passwd content",
    "removed /etc/profile",
    "removed /lib/modules",
    "changed /sbin owner",
    "added /srv",
    "added /srv/www",
    "added /srv/www/index",
  ]);
  await daemon.ok(["stop", "box"]);
  expect(await drift("box")).toMatchObject({ reading: "idle" });
  expect(await changes("box")).toEqual(found);
  const shown = await daemon.ok(["instance", "drift", "box"]);
  expect(shown.stdout).toMatch(/removed +\/lib\/modules +directory, and \d+ below/);
  expect(shown.stdout).toMatch(/added +\/srv +directory, and 2 below/);
  expect((await drift("box", "--all")).differences).toContainEqual(
    expect.objectContaining({ path: "/tmp/x", usual: "temporary files" }),
  );
});
