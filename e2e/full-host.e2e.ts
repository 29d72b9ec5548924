/**
 * The directory of the daemon's own state fills while a container writes to its root, by the command line: the writer waits,
 * everybody is told, nothing that was acknowledged is lost, and it goes on when there is space.
 */
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { eventKind } from "../src/kinds/event.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { PoolScene } from "./pool-scene.ts";
import { TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
let before: Snapshot;
let daemon: TestDaemon;
let scene: PoolScene;
let path: string;

beforeAll(async () => {
  before = await takeSnapshot();
  scene = await PoolScene.create();
  // Containers reach their files through it.
  await chmod(scene.directory, 0o711);
  path = await scene.fileSystem("host", "ext4", 1600);
  daemon = await TestDaemon.create({ STRATA_STATE_DIR: join(path, "state") });
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  await daemon.ok(["launch", "tiny", "box", "--type", "container", "--memory", "256MiB", "--disk", "700MiB"]);
}, 200_000);

afterAll(async () => {
  await scene.unfill(path).catch(() => {});
  await daemon?.dispose();
  await scene.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 180_000);

async function isFull(): Promise<boolean> {
  const { items } = await daemon.client.list(volumeKind, { project });
  return items.some(({ status }) => status.message === "writers wait: its host has no space left");
}

function inside(script: string) {
  return daemon.ok(["exec", "box", "--", "sh", "-ec", script], { timeoutMs: 120_000 });
}

it("lets a writer to a container's root wait, and go on; every acknowledged row is there", async () => {
  await scene.fill(path, 400);
  // A row is acknowledged once its sum is on disk as well.
  const row =
    "dd if=/dev/urandom of=row$row bs=1M count=1 conv=fsync; sha256sum row$row | dd of=sum$row conv=fsync";
  const rows = `mkdir -p /rows; cd /rows; for row in $(seq 250); do ${row}; done`;
  await inside(`setsid sh -ec '${rows}' > /dev/null 2>&1 < /dev/null &`);
  await until("it is full", isFull, 90_000, 100);
  expect(await scene.freeMib(path)).toBeGreaterThan(50);
  expect(Number((await inside("wc -c < /bin/sh")).stdout), "reading goes on").toBeGreaterThan(0);

  // Whoever was held by a daemon that was killed is held by the next.
  await daemon.kill();
  await daemon.start();
  await until("it is full still", isFull, 30_000, 100);
  await scene.unfill(path);
  await until("it has space", async () => !(await isFull()), 30_000, 100);
  const written = async () => (await inside("ls /rows | grep -c sum")).stdout.trim() === "250";
  await until("all rows are written", written, 120_000, 200);
  expect((await inside("cd /rows; cat sum* | sha256sum -c | grep -c OK")).stdout.trim()).toBe("250");
  const { items } = await daemon.client.list(eventKind, { project });
  const told = items.map(({ spec }) => `${spec.subject.kind} ${spec.subject.name} ${spec.reason}`);
  expect(told).toEqual(expect.arrayContaining(["Instance box WritersWait", "Instance box WritersGoOn"]));
}, 300_000);

it("stops a container whose writer waits, and its root is whole afterwards", async () => {
  await inside("rm -r /rows; echo kept > /note; sync");
  await scene.fill(path, 350);
  const stuck = inside("cat /dev/zero > /zeros").catch(() => {});
  await until("it is full", isFull, 90_000, 50);
  await daemon.ok(["stop", "box"], { timeoutMs: 60_000 });
  await stuck;
  await scene.unfill(path);
  await daemon.ok(["start", "box"], { timeoutMs: 60_000 });
  expect((await inside("rm /zeros; cat /note; echo more > /more; sync; cat /more")).stdout).toBe(
    "kept\nmore\n",
  );
}, 180_000);
